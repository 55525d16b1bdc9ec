// Read a JSON list of YAML texts and print a JSON list with the list of errors that GitHub's parser finds in each text.
// The argument is the URL of the package @actions/workflow-parser, with a slash at its end.

import { readFileSync } from "node:fs";
import { register } from "node:module";

// The package imports its schema, a JSON file, without the import attribute that node requires.
const loader = `export function load(url, context, next) {
  return next(url, url.endsWith(".json") ? { ...context, importAttributes: { type: "json" } } : context);
}`;
register(`data:text/javascript,${encodeURIComponent(loader)}`);

const [, , folder] = process.argv;
const { parseWorkflow, NoOperationTraceWriter } = await import(`${folder}dist/index.js`);
const { convertWorkflowTemplate, ErrorPolicy } = await import(`${folder}dist/model/convert.js`);

async function errorsOf(content) {
  const { context, value } = parseWorkflow({ name: "workflow.yml", content }, new NoOperationTraceWriter());
  if (value) {  // as in GitHub's language service: convert despite parse errors, because conversion finds more errors
    await convertWorkflowTemplate(context, value, undefined, { errorPolicy: ErrorPolicy.TryConversion });
  }
  return context.errors.getErrors().map(({ range, rawMessage }) => {
    const message = rawMessage.split("\n")[0];  // the other lines quote the text
    return range ? `line ${range.start.line}, column ${range.start.column}: ${message}` : message;
  });
}

const results = [];
for (const text of JSON.parse(readFileSync(0, "utf8"))) {
  results.push(await errorsOf(text));
}
process.stdout.write(JSON.stringify(results));
