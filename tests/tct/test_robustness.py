"""What no one should feed the tokenizer: a clear error or the right answer, in bounded time and memory."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import tct_github_workflow as tct
from tct import SchemaValidationError
from tct.json_text import compact
from tct_github_workflow.workflow_yaml import dump_workflow

SCRIPTS = Path(__file__).parents[2] / "tct-bundle/scripts"
MAX_MEMORY = 1 << 30  # bytes of one process
STEP = {
    "name": "Run the tests",
    "uses": "actions/checkout@v4",
    "with": {"fetch-depth": 0},
    "env": {"A": "b c"},
}


def workflow(value) -> str:
    """A workflow in JSON that has a value, given as text, in a place where any may stand."""
    return f'{{"on":"push","jobs":{{"a":{{"runs-on":"x","strategy":{{"matrix":{{"m":[{value}]}}}}}}}}}}'


def large(jobs: int) -> dict:
    job = {"runs-on": "ubuntu-latest", "steps": [STEP] * 10}
    return {"on": "push", "jobs": {f"job{index}": job for index in range(jobs)}}


# -----------------------------------------------------------------------------
# the module


@pytest.mark.slow
def test_a_workflow_of_5_megabytes_comes_back():
    text = compact(large(5000))
    assert len(text) > 5e6
    tokens = tct.encode(text)
    assert tct.decode(tokens) == (text, len(tokens), len(tokens))


@pytest.mark.slow
@pytest.mark.parametrize("text", ["a", " ", "\n", "${{ ", "/", "é🚀", "0123456789", "ab_", "echo hello\n"])
def test_a_string_of_a_megabyte_comes_back(text):
    value = compact({"on": "push", "env": {"A": text * (1_000_000 // len(text))}, "jobs": {"a": {"runs-on": "x"}}})
    assert tct.decode(tct.encode(value))[0] == value


@pytest.mark.slow
def test_30_000_keys_and_as_many_items_come_back():
    env = {f"KEY_{index}": index for index in range(30_000)}
    value = compact({"on": {"push": {"branches": list(env)}}, "env": env, "jobs": {"a": {"runs-on": "x"}}})
    assert tct.decode(tct.encode(value))[0] == value


@pytest.mark.parametrize("opening, closing", [("[", "]"), ('{"a":', "}")])
@pytest.mark.parametrize("levels, reason", [(90, None), (500, "100 levels"), (1000, ""), (100_000, "too deeply")])
def test_deep_nesting_is_taken_up_to_the_limit_and_refused_beyond(opening, closing, levels, reason):
    text = workflow(opening * levels + "1" + closing * levels)
    if reason is None:
        assert tct.decode(tct.encode(text))[0] == text
    else:
        with pytest.raises(ValueError, match=rf"^\$.*nested.*{reason}"):
            tct.encode(text)


@pytest.mark.parametrize("levels", [1000, 100_000])
def test_a_deep_value_is_refused_too(levels):
    value = 1
    for _ in range(levels):
        value = [value]
    with pytest.raises(SchemaValidationError, match="nested more than 100 levels"):
        tct.tokenizer().encode_value(
            json.loads(workflow("1")) | {"jobs": {"a": {"runs-on": "x", "strategy": {"matrix": {"m": value}}}}}
        )


@pytest.mark.parametrize("levels", [0, 3])
@pytest.mark.parametrize(
    "value, reason",
    [
        ('"\\ud800"', "lone surrogate"),
        ('{"\\udfff":1}', "lone surrogate"),
        ('"\ud800"', "lone surrogate"),
        ("NaN", "NaN is not a JSON number"),
        ("-Infinity", "-Infinity is not a JSON number"),
        ("1e400", "inf is not a JSON number"),
        ("9" * 10_000, "10000 digits"),
        ("-" + "9" * 4_301, "4301 digits"),
    ],
)
def test_what_json_does_not_hold_is_refused_wherever_it_is(value, reason, levels):
    with pytest.raises(ValueError, match=reason):
        tct.encode(workflow("[" * levels + value + "]" * levels))


@pytest.mark.parametrize("number", ["9" * 4300, "-" + "9" * 4300, "0." + "0" * 10_000 + "1", "1" * 300 + ".5", "-0.0"])
def test_long_numbers_come_back(number):
    text = workflow(number)
    assert json.loads(tct.decode(tct.encode(text))[0]) == json.loads(text)


def test_a_file_cut_anywhere_is_refused_with_its_place():
    text = compact(large(1))
    for end in range(len(text)):
        with pytest.raises(ValueError, match=r"not JSON: .*line 1 column \d+"):
            tct.encode(text[:end])


# -----------------------------------------------------------------------------
# the scripts


def yaml(value: str) -> str:
    return f"on: push\njobs:\n  a:\n    runs-on: x\n    strategy: {{matrix: {{m: [1]}}}}\nenv:\n  A: {value}\n"


def nested(levels: int) -> str:
    return workflow("[" * levels + "]" * levels)


FILES = {  # name -> (text, what prepare_training_data makes of it, what its message says)
    "good.json": (compact(large(2)), None, ""),
    "good.yml": (dump_workflow(large(3)), None, ""),
    "large.json": (compact(large(2500)), "too_long", "use --stride 64"),
    "large.yml": (dump_workflow(large(2500)), "too_long", "use --stride 64"),
    "deep90.json": (nested(90), None, ""),
    "deep90.yml": (nested(89), None, ""),
    "deep500.json": (nested(500), "not_schema_valid", "nested more than 100 levels"),
    "deep500.yml": (nested(500), "not_schema_valid", "nested more than 100 levels"),
    "deep1000.json": (nested(1000), "syntax", "nested too deeply"),
    "deep1000.yml": (nested(1000), "syntax", "line 1, column 1062: more than 1,000 nested collections"),
    "deep-block.yml": (  # on line 1001, or 1000 where PyYAML is the first to refuse it
        "\n".join(" " * level + "a:" for level in range(1500)),
        "syntax",
        ", column 1001: more than 1,000 nested collections",
    ),
    "bracket.json": ("[" * 1_000_000, "syntax", "nested too deeply"),
    "bracket.yml": ("[" * 1_000_000, "syntax", "more than 1,000 nested"),
    "surrogate.json": (workflow('"\\ud800"'), "syntax", "half of a surrogate pair"),
    "surrogate.yml": (yaml('"\\ud800"'), "syntax", "line 7, column 9: found invalid Unicode character"),
    "nan.json": (workflow("NaN"), "syntax", "NaN has no JSON form"),
    "nan.yml": (yaml(".nan"), "syntax", "line 7, column 6: .nan has no JSON form"),
    "digits.json": (workflow("9" * 10_000), "syntax", "10000 digits"),
    "digits.yml": (yaml("9" * 10_000), "syntax", "line 7, column 6: Exceeds the limit (4300 digits)"),
    "hex.yml": (yaml("0x" + "f" * 10_000), "syntax", "line 7, column 6: Exceeds the limit (4300 digits)"),
    "exponent.yml": (yaml("1e999999"), "syntax", "line 7, column 6: 1e999999 has no JSON form"),
    "cut.json": (compact(large(4))[:-20], "syntax", "line 1, column"),
    "cut.yml": (yaml('"b')[:-1], "syntax", "line 7, column 8: found unexpected end of stream"),
    "cut-off.yml": (yaml("1")[:30], "not_schema_valid", "$.jobs"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("robustness") / "in"
    folder.mkdir()
    for name, (text, _, _) in FILES.items():
        (folder / name).write_text(text)
    return folder


# A process counts the memory of the one that started it as its own, so a small one stands between pytest and it.
MEASURE = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:], stderr=subprocess.STDOUT)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""


def run(script, *flags) -> str:
    """The output of a script, which must end well and use little memory."""
    command = [sys.executable, "-c", MEASURE, sys.executable, SCRIPTS / f"{script}.py", *map(str, flags)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    output, kilobytes = result.stdout.rstrip("\n").rsplit("\n", 1)
    assert int(kilobytes) * 1024 < MAX_MEMORY
    return output


@pytest.mark.slow
def test_preparation_names_each_of_them_with_its_reason(folder):
    output = folder.parent / "prepared"
    run("prepare_training_data", "--input", folder, "--output", output, "--num-workers", 1)
    skipped = {item["file"]: item for item in map(json.loads, (output / "skipped.jsonl").read_text().splitlines())}
    assert skipped.keys() == {name for name, (_, reason, _) in FILES.items() if reason}
    for name, item in skipped.items():
        _, reason, message = FILES[name]
        assert item["reason"] == reason and message in item["detail"], item
        assert "\n" not in item["detail"]
