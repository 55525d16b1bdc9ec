"""How many schemas compile, how long does it take, and are the verdicts on their documents right?

    python experiments/compile/study.py FOLDER [FOLDER ...] --output experiments/compile/results.json

A folder has .json files: schemas, or objects with a `schema` and `tests` ({"data": ..., "valid": true}). `bundled` in
place of a folder means the schemas of check-jsonschema. Each engine reads each schema in a process of its own, which
has no caches and a limit of CPU time. All times are CPU time, because other programs may run. It needs Linux.
"""

import argparse
import json
import os
import resource
import time
from collections import Counter
from functools import cache
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path

import check_jsonschema
import jsonschema_rs
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from script_tools.cli import ArgumentParser, cli_errors
from script_tools.files import write_atomic
from script_tools.tables import table
from scripts.bench.engines import in_order, key_orders
from tct import SchemaValidationError, UnsupportedSchemaError, compile_json_schema
from tct.json_text import compact

BUNDLED = Path(check_jsonschema.__file__).parent / "builtin_schemas"


class Refused(Exception):
    """The engine does not compile the schema. The first argument is the keyword or the reason."""


class Tct:
    name = "tct"

    def __init__(self, schema):
        try:
            self._schema = compile_json_schema(schema)
        except UnsupportedSchemaError as error:
            raise Refused(error.keyword, str(error)) from None

    def accepts(self, value) -> bool:
        try:
            self._schema.encode(value)
        except SchemaValidationError:
            return False
        return True


class LLGuidance:
    """llguidance in its strict mode. It accepts keys in the order of the schema only, so documents are sorted so."""

    name = "llguidance"

    def __init__(self, schema):
        from llguidance import LLMatcher  # optional

        self._orders = list(key_orders(schema))
        grammar = LLMatcher.grammar_from_json_schema(schema, overrides={"whitespace_flexible": False})
        self._bytes, info = bytes_tokenizer()
        self._matcher = LLMatcher(info, grammar, log_level=0)
        if self._matcher.is_error():
            message = self._matcher.get_error()
            raise Refused(message.splitlines()[0][:60], message)

    def accepts(self, value) -> bool:
        orders = [value, in_order(value, self._orders)] if self._orders else [value]
        return any(self._accepts(compact(each)) for each in orders)

    def _accepts(self, text: str) -> bool:
        ids = self._bytes.encode(text).ids
        matcher = self._matcher.deep_copy()
        return (
            matcher.validate_tokens(ids) == len(ids) and all(map(matcher.consume_token, ids)) and matcher.is_accepting()
        )


@cache
def bytes_tokenizer() -> tuple:
    """Return a tokenizer without merges, and the same for llguidance. No engine is timed for it."""
    from llguidance import LLTokenizer  # optional

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {char: number for number, char in enumerate([*alphabet, "<end>"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<end>"])
    end, size = tokenizer.token_to_id("<end>"), tokenizer.get_vocab_size()
    return tokenizer, LLTokenizer(tokenizer.to_str(), n_vocab=size, eos_token=end)


def measure(engine: type, schema, tests: list[dict]) -> dict:
    """Return what happened: `kind` is compiled, wrong or refused."""
    start = time.process_time()
    try:
        compiled = engine(schema)
    except Refused as refused:
        keyword, reason = refused.args
        return {"kind": "refused", "keyword": keyword, "reason": reason, "compile": time.process_time() - start}
    compiled_at = time.process_time()
    verdicts = [compiled.accepts(test["data"]) for test in tests]
    times = {"compile": compiled_at - start, "verdicts": time.process_time() - compiled_at}
    pairs = zip(verdicts, tests)
    wrong = [
        {"accepted": verdict, "valid": test["valid"], "jsonschema_rs": jsonschema_rs.is_valid(schema, test["data"])}
        for verdict, test in pairs
        if verdict != test["valid"]
    ]
    return {"kind": "wrong" if wrong else "compiled", **times, "wrong": wrong}


def measure_apart(seconds: int, *arguments) -> dict:
    """Measure in another process. It is killed once it has used `seconds` of CPU time."""
    context = get_context("fork")
    here, there = context.Pipe(duplex=False)

    def run() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # tracebacks are in the result
        try:
            there.send(measure(*arguments))
        except Exception as error:
            there.send({"kind": "error", "reason": f"{type(error).__name__}: {error}"})

    process = context.Process(target=run)
    process.start()
    there.close()
    try:
        return here.recv()
    except EOFError:
        return {"kind": "too slow", "compile": seconds}
    finally:
        process.join()


def summary(results: list[dict], engine: str) -> tuple:
    """Return a row of the table: how many schemas, and times of those that compile or are too slow."""
    own = [result for result in results if result["engine"] == engine]
    kinds = Counter(result["kind"] for result in own)
    timed = [result for result in own if result["kind"] in ("compiled", "wrong", "too slow")]
    compile_times = sorted(result["compile"] for result in timed)
    all_times = sorted(result["compile"] + result.get("verdicts", 0) for result in timed)
    return (
        engine, len(own), kinds["compiled"] + kinds["wrong"], kinds["wrong"], kinds["refused"], kinds["too slow"],
        kinds["error"], *map(milliseconds, (*quantiles(compile_times), *quantiles(all_times))),
    )  # fmt: skip


def quantiles(times: list[float]) -> tuple[float, float, float]:
    """Return the median, the 99th percentile and the maximum of sorted times."""
    return (times[len(times) // 2], times[int(len(times) * 0.99)], times[-1]) if times else (0, 0, 0)


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:,.0f}"


HEADER = (
    "engine", "schemas", "compile", "with a wrong verdict", "refused", "too slow", "error",
    "compile: median, ms", "99%", "max", "with verdicts: median, ms", "99%", "max",
)  # fmt: skip


@cli_errors
def main(argv=None):
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add("folders", "folders of schemas, or `bundled`", nargs="+", metavar="FOLDER")
    parser.add("--limit", "seconds of CPU time for each schema", 30)
    parser.add("--output", "results of each schema, a .json file", type=Path, required=True)
    args = parser.parse_args(argv)
    engines = [Tct]
    if find_spec("llguidance"):
        engines.append(LLGuidance)
        bytes_tokenizer()  # in this process, so that others have it
    everything = {}
    for folder in args.folders:
        results = everything[folder if folder == "bundled" else Path(folder).name] = []
        files = sorted((BUNDLED if folder == "bundled" else Path(folder)).rglob("*.json"))
        if not files:
            raise ValueError(f"{folder} holds no .json file")
        for file in files:
            content = json.loads(file.read_text("utf-8"))
            is_bench = isinstance(content, dict) and content.keys() >= {"schema", "tests"}
            schema, tests = (content["schema"], content["tests"]) if is_bench else (content, [])
            for engine in engines:
                result = measure_apart(args.limit, engine, schema, tests)
                results.append({"schema": file.stem, "engine": engine.name, **result})
    write_atomic(args.output, json.dumps(everything, indent=1).encode())
    for name, results in everything.items():
        print(f"## {name}\n\n{table(HEADER, (summary(results, engine.name) for engine in engines))}\n")
        for engine in engines:
            print_details(engine.name, [result for result in results if result["engine"] == engine.name])


def print_details(engine: str, results: list[dict]) -> None:
    reasons = Counter(result["keyword"] for result in results if result["kind"] == "refused")
    print(f"{engine} refuses:", ", ".join(f"{keyword} {n}" for keyword, n in reasons.most_common()))
    slowest = sorted((r for r in results if "compile" in r), key=lambda r: -r["compile"])[:5]
    print(f"{engine}, slowest:", ", ".join(f"{r['schema']} {r['compile']:.2f} s" for r in slowest))
    for result in results:
        for wrong in result.get("wrong", []):
            print(f"{engine} is wrong about {result['schema']}: {wrong}")
        if result["kind"] == "error":
            print(f"{engine} fails on {result['schema']}: {result['reason']}")
    print()


if __name__ == "__main__":
    main()
