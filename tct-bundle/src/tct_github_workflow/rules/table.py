"""The table of the rules: what each requires, where GitHub documents it, and examples.

>>> [finding.rule for finding in check(example(RULES["needs"].fails[0]))]
['needs']
"""

from dataclasses import dataclass
from typing import Any

from ..workflow_yaml import load_workflow

DOCS = "https://docs.github.com/en/actions/reference/"
SYNTAX = DOCS + "workflows-and-actions/workflow-syntax"
EVENTS = DOCS + "workflows-and-actions/events-that-trigger-workflows"
EXPRESSIONS = DOCS + "workflows-and-actions/expressions"
CONTEXTS = DOCS + "workflows-and-actions/contexts"
COMMANDS = DOCS + "workflows-and-actions/workflow-commands"
SECURE_USE = DOCS + "security/secure-use"


@dataclass(frozen=True)
class Rule:
    """A rule. The examples are YAML; `example` completes them to workflows."""

    name: str
    says: str  # what it requires, in one sentence
    page: str  # of GitHub's documentation
    passes: tuple[str, ...]
    fails: tuple[str, ...]  # each breaks this rule only, and once


def example(text: str) -> dict[str, Any]:
    """Return the workflow of an example: part of a workflow, or a list of steps.

    Without `on` the workflow starts on push. A job without `runs-on`, `steps` and `uses` gets a runner and a step.
    """
    part = load_workflow(text)
    if isinstance(part, list):
        part = {"jobs": {"build": {"runs-on": "ubuntu-latest", "steps": part}}}
    workflow = {"on": "push", "jobs": {"build": {}}} | part
    for job in workflow["jobs"].values():
        if job.keys().isdisjoint(("runs-on", "steps", "uses")):
            job.update({"runs-on": "ubuntu-latest", "steps": [{"run": "make"}]})
    return workflow


EXPRESSION_RULES = [
    Rule(
        "expression-syntax",
        "An expression follows the grammar, is closed by }}, and uses contexts and functions that exist.",
        EXPRESSIONS,
        ("- if: github.ref == 'refs/heads/main' && !cancelled()\n  run: make", "- run: echo {{ not an expression }}"),
        (
            '- run: echo ${{ github.ref == "main" }}',
            "- run: echo ${{ github.sha",
            "- run: echo ${{ }}",
            "- run: echo ${{ git.sha }}",
            "- run: echo ${{ upper(github.ref) }}",
        ),
    ),
    Rule(
        "expression-type",
        "Operators and places get values of types that they take.",
        EXPRESSIONS + "#operators",
        ("- run: make\n  timeout-minutes: ${{ github.run_attempt == 1 && 5 || 10 }}",),
        (
            "- run: echo ${{ github.event }}",
            "- if: ${{ github.event }}\n  run: make",
            "- run: make\n  timeout-minutes: ${{ github.ref_protected }}",
            "- run: echo ${{ github.sha.short }}",
            "- if: github.event.commits == github\n  run: make\n- run: echo ${{ github == 1 }}",
        ),
    ),
    Rule(
        "undefined-property",
        "A property of a context exists: earlier steps with ids, needed jobs and their outputs, inputs, matrix rows.",
        CONTEXTS,
        ("- id: build\n  run: make\n- run: echo ${{ steps.build.outcome }}",),
        (
            "- run: echo ${{ steps.build.outcome }}\n- id: build\n  run: make",
            "- run: echo ${{ github.reff }}",
            "- run: echo ${{ needs.test.result }}",
            "- run: echo ${{ inputs.level }}",
            "- run: echo ${{ matrix.os }}",
            "jobs: {a: {outputs: {x: y}}, b: {needs: a, env: {Z: '${{ needs.a.outputs.z }}'}}}",
        ),
    ),
    Rule(
        "context-availability",
        "An expression uses only the contexts and functions that are available in its place.",
        CONTEXTS + "#context-availability",
        ("- run: echo ${{ hashFiles('**/*.lock') }} ${{ secrets.TOKEN }}",),
        (
            "jobs: {a: {name: '${{ env.NAME }}'}}",
            "- if: secrets.TOKEN\n  run: make",
            "- run: echo ${{ success() }}",
            "jobs: {a: {name: \"${{ hashFiles('a') }}\"}}",
        ),
    ),
    Rule(
        "function-arguments",
        "A function gets arguments that fit in number and type; format() has a placeholder for each value.",
        EXPRESSIONS + "#functions",
        ("- run: echo ${{ format('{0} {1}', github.sha, github.ref) }}",),
        (
            "- run: echo ${{ startsWith(github.ref) }}",
            "- run: echo ${{ join(github.sha) }}",
            "- run: echo ${{ format('{0} {1}', github.sha) }}",
            "- run: echo ${{ fromJSON('[1,') }}",
        ),
    ),
    Rule(
        "expression-place",
        "Expressions stand where GitHub evaluates them, and one expression is the whole value where it gives no text.",
        CONTEXTS + "#context-availability",
        ("jobs: {a: {strategy: {matrix: '${{ fromJSON(vars.MATRIX) }}'}}}",),
        (
            "name: Build ${{ github.ref }}",
            "- uses: actions/checkout@${{ github.sha }}",
            "- run: make\n  timeout-minutes: about ${{ 5 }}",
            "- uses: actions/checkout@v4\n  with: {'${{ github.sha }}': 1}",
        ),
    ),
    Rule(
        "constant-condition",
        "An `if` with ${{ }} has no text around it, because such a text is always true.",
        SYNTAX + "#jobsjob_idif",
        ("- if: ${{ github.ref == 'refs/heads/main' }}\n  run: make",),
        ("- if: ${{ github.ref == 'refs/heads/main' }} && false\n  run: make",),
    ),
    Rule(
        "script-injection",
        "A script does not contain what strangers can write, such as the title of an issue: it comes through `env`.",
        SECURE_USE + "#understanding-the-risk-of-script-injections",
        ("- run: echo \"$TITLE\"\n  env: {TITLE: '${{ github.event.issue.title }}'}",),
        (
            "- run: echo ${{ github.event.issue.title }}",
            "- uses: actions/github-script@v7\n  with: {script: \"log('${{ github.head_ref }}')\"}",
        ),
    ),
]

STRUCTURE_RULES = [
    Rule(
        "value-type",
        "A value has a type that its place takes.",
        SYNTAX,
        ("- run: make\n  continue-on-error: true",),
        ("- run: make\n  env: [A]", "- run: make\n  continue-on-error: 1", "env: {A: }"),
    ),
    Rule(
        "empty-value",
        "Texts, objects and arrays are not empty where GitHub needs content.",
        SYNTAX,
        ("- run: make\n  env: {A: ''}",),
        ("- run: ''", "jobs: {a: {runs-on: x, steps: []}}", "- run: make\n  env: {}"),
    ),
    Rule(
        "unknown-key",
        "An object has only keys that GitHub knows.",
        SYNTAX,
        ("permissions: {contents: read}",),
        ("- run: make\n  dir: src", "permissions: {content: read}", "on: {pull_request: {tags: [v1]}}"),
    ),
    Rule(
        "duplicate-key",
        "Names differ by more than upper and lower case.",
        SYNTAX + "#jobsjob_id",
        ("jobs: {test: {}, tests: {}}",),
        ("jobs: {test: {}, Test: {}}", "env: {Path: a, PATH: b}"),
    ),
    Rule(
        "missing-key",
        "An object has the keys that GitHub requires.",
        SYNTAX,
        ("jobs: {a: {runs-on: ubuntu-latest, steps: [{run: make}]}}", "jobs: {a: {uses: ./.github/workflows/a.yml}}"),
        (
            "jobs: {a: {steps: [{run: make}]}}",
            "jobs: {a: {runs-on: ubuntu-latest}}",
            "- name: Build",
            "on: {workflow_run: {types: [completed]}}",
        ),
    ),
    Rule(
        "mixed-kinds",
        "A job has steps or calls a workflow, and a step runs a script or an action: not both.",
        SYNTAX + "#jobsjob_iduses",
        ("- uses: actions/checkout@v4\n- run: make",),
        (
            "- uses: actions/checkout@v4\n  run: make",
            "- uses: actions/checkout@v4\n  shell: bash",
            "jobs: {a: {uses: ./.github/workflows/a.yml, runs-on: ubuntu-latest}}",
        ),
    ),
    Rule(
        "identifier",
        "An id has at most 99 letters, digits, - and _, and does not start with a digit, - or two underscores.",
        SYNTAX + "#jobsjob_id",
        ("jobs: {build-2_x: {}}",),
        ("jobs: {2-build: {}}", "- id: my step\n  run: make", "on: {workflow_dispatch: {inputs: {a b: {}}}}"),
    ),
    Rule(
        "duplicate-id",
        "The ids of the steps of a job differ by more than upper and lower case.",
        SYNTAX + "#jobsjob_idstepsid",
        ("- {id: a, run: make}\n- {id: b, run: make}",),
        ("- {id: a, run: make}\n- {id: A, run: make}",),
    ),
    Rule(
        "environment-variable",
        "The name of an environment variable has no blank, & or =.",
        SYNTAX + "#env",
        ("env: {BUILD_MODE: fast}",),
        ("env: {BUILD MODE: fast}", "env: {A=B: fast}"),
    ),
    Rule(
        "choice",
        "A value that must be one of some words is one of them.",
        SYNTAX,
        ("permissions: read-all", "on: {issues: {types: [opened]}}"),
        ("permissions: admin", "permissions: {contents: all}", "on: {issues: {types: [created]}}", "on: pushed"),
    ),
    Rule(
        "positive-number",
        "Minutes and numbers of jobs are greater than zero and at most 2147483647, and numbers of jobs are whole.",
        SYNTAX + "#jobsjob_idtimeout-minutes",
        ("- run: make\n  timeout-minutes: 0.5",),
        (
            "- run: make\n  timeout-minutes: 0",
            "- run: make\n  timeout-minutes: 2147483648",
            "jobs: {a: {strategy: {matrix: {x: [1]}, max-parallel: 1.5}}}",
        ),
    ),
]

FORM_RULES = [
    Rule(
        "uses",
        "`uses` of a step is owner/repository@ref, ./path or docker://image; of a job it is a workflow file, without a "
        "ref if it is in this repository.",
        SYNTAX + "#jobsjob_idstepsuses",
        ("- uses: actions/checkout@v4\n- uses: ./actions/build\n- uses: docker://alpine:3.20",),
        (
            "- uses: actions/checkout",
            "- uses: checkout@v4",
            "- uses: actions/checkout@my branch",
            "jobs: {a: {uses: ./.github/workflows/a.yml@v1}}",
        ),
    ),
    Rule(
        "runs-on",
        "A runner group is a name, organization/name or enterprise/name.",
        SYNTAX + "#jobsjob_idruns-on",
        ("jobs: {a: {runs-on: {group: organization/large}, steps: [{run: make}]}}",),
        ("jobs: {a: {runs-on: {group: team/large}, steps: [{run: make}]}}",),
    ),
    Rule(
        "cron",
        "A schedule has five fields in their ranges, on a day that exists, and runs at most every five minutes.",
        EVENTS + "#schedule",
        ("on: {schedule: [{cron: '0 6 * * MON-FRI'}]}",),
        (
            "on: {schedule: [{cron: '0 6 * *'}]}",
            "on: {schedule: [{cron: '60 6 * * *'}]}",
            "on: {schedule: [{cron: '* * * * *'}]}",
            "on: {schedule: [{cron: '0 0 30 2 *'}]}",
        ),
    ),
    Rule(
        "glob",
        "A pattern of branches, tags or paths is well formed.",
        SYNTAX + "#filter-pattern-cheat-sheet",
        ("on: {push: {branches: [main, 'release/**'], paths: ['src/**', '!src/docs/**']}}",),
        ("on: {push: {branches: ['v[1-']}}", "on: {push: {branches: [a b]}}", "on: {push: {paths: [./src]}}"),
    ),
    Rule(
        "filters",
        "A filter and its -ignore form exclude each other.",
        SYNTAX + "#onpushbranchestagsbranches-ignoretags-ignore",
        ("on: {push: {branches: [main], paths-ignore: [docs/**]}}",),
        ("on: {push: {branches: [main], branches-ignore: [dev]}}",),
    ),
    Rule(
        "shell",
        "A shell is one that the runner has, or a command with {0} for the script.",
        SYNTAX + "#jobsjob_idstepsshell",
        ("- {run: make, shell: bash}\n- {run: make, shell: 'perl {0}'}",),
        ("- {run: make, shell: fish}", "- {run: make, shell: cmd}"),
    ),
    Rule(
        "inputs",
        "The default of an input fits its type, options are for choices, and workflow_dispatch has at most 10 inputs.",
        EVENTS + "#workflow_dispatch",
        ("on: {workflow_dispatch: {inputs: {level: {type: choice, options: [low, high], default: low}}}}",),
        (
            "on: {workflow_dispatch: {inputs: {level: {type: choice}}}}",
            "on: {workflow_dispatch: {inputs: {level: {type: choice, options: [low], default: high}}}}",
            "on: {workflow_dispatch: {inputs: {level: {type: number, default: high}}}}",
            "on: {workflow_call: {inputs: {level: {type: string, required: true, default: low}}}}",
        ),
    ),
    Rule(
        "deprecated-command",
        "A script does not use the commands that GitHub has disabled, such as ::set-output.",
        COMMANDS,
        ("- run: echo name=value >> $GITHUB_OUTPUT",),
        ("- run: echo '::set-output name=version::1'",),
    ),
]

JOB_RULES = [
    Rule(
        "needs",
        "`needs` names other jobs, each once and in their case, and no jobs need each other.",
        SYNTAX + "#jobsjob_idneeds",
        ("jobs: {build: {}, test: {needs: build}}",),
        ("jobs: {test: {needs: build}}", "jobs: {a: {}, b: {needs: [a, a]}}", "jobs: {a: {}, b: {needs: A}}"),
    ),
    Rule(
        "matrix-duplicate",
        "No row of a matrix has a value twice.",
        SYNTAX + "#jobsjob_idstrategymatrix",
        ("jobs: {a: {strategy: {matrix: {version: [20, 22]}}}}",),
        ("jobs: {a: {strategy: {matrix: {version: [20, 22, '20']}}}}",),
    ),
    Rule(
        "matrix-exclude",
        "`exclude` names values that the matrix has.",
        SYNTAX + "#jobsjob_idstrategymatrixexclude",
        ("jobs: {a: {strategy: {matrix: {version: [20, 22], exclude: [{version: 20}]}}}}",),
        (
            "jobs: {a: {strategy: {matrix: {version: [20, 22], exclude: [{version: 18}]}}}}",
            "jobs: {a: {strategy: {matrix: {exclude: [{version: 18}]}}}}",
        ),
    ),
]

RULES = {rule.name: rule for rule in [*EXPRESSION_RULES, *STRUCTURE_RULES, *FORM_RULES, *JOB_RULES]}

# Rules of `check(workflow, known_actions=True)`, which GitHub does not have.
KNOWN_RULES = {
    rule.name: rule
    for rule in [
        Rule(
            "known-action",
            "`uses` is an action, or a workflow, that at least three owners of the corpus use.",
            SYNTAX + "#jobsjob_idstepsuses",
            ("- uses: actions/checkout@v4",),
            ("- uses: octocat/checkout@v4", "- uses: actions/checkout@v0"),
        ),
        Rule(
            "known-input",
            "`with` has inputs that at least three owners use with the action.",
            SYNTAX + "#jobsjob_idstepswith",
            ("- uses: actions/checkout@v4\n  with: {fetch-depth: 0}",),
            ("- uses: actions/checkout@v4\n  with: {node-version: 20}",),
        ),
        Rule(
            "known-runner",
            "`runs-on` is a runner that GitHub hosts, or an expression.",
            "https://docs.github.com/en/actions/reference/runners/github-hosted-runners",
            ("jobs: {a: {runs-on: '${{ github.event.x }}', steps: [run: make]}}",),
            ("jobs: {a: {runs-on: self-hosted, steps: [run: make]}}",),
        ),
    ]
}
