"""A tokenizer for another schema, made by build_tokenizer.py alone: Taskfiles, under the schema of check-jsonschema."""

import json
import random
from pathlib import Path

import jsonschema_rs
import numpy as np
import pytest
from check_jsonschema.builtin_schemas import get_builtin_schema
from helpers import exit_code

from script_tools.bitmask import allowed_tokens
from scripts.stress import tokenizer as check_tokenizer
from scripts.stress.mutations import Pool, mutate
from tct import SchemaValidationError, Tokenizer
from tct.json_text import compact
from workflow_data import build_tokenizer
from workflow_synth import taskfiles as sample_taskfiles

SCRIPT = Path(__file__).parents[2] / "tct-bundle/scripts/build_tokenizer.py"
SCHEMA = get_builtin_schema("vendor.taskfile")
# ECMA-262's `.` takes no line separator of any kind; jsonschema-rs only keeps it from a newline.
ECMA_SCHEMA = json.loads(json.dumps(SCHEMA).replace('"^.*$"', r'"^[^\\n\\r\\u2028\\u2029]*$"'))
JUDGE = jsonschema_rs.validator_for(ECMA_SCHEMA)
COUNT, VOCAB_SIZE = 200, 900


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """schema.json, and in corpus/ the Taskfiles as files."""
    folder = tmp_path_factory.mktemp("second")
    (folder / "schema.json").write_text(json.dumps(SCHEMA))
    sample_taskfiles.main(["--output", str(folder / "corpus"), "--count", str(COUNT)])
    return folder


def build(folder, output, schema="schema.json", corpus="corpus", vocab_size=VOCAB_SIZE) -> int:
    return exit_code(
        build_tokenizer.main,
        ["--schema", str(folder / schema), "--corpus", str(folder / corpus), "--vocab-size", str(vocab_size)]
        + ["--output", str(output)],
    )


@pytest.fixture(scope="module")
def tokenizer(folder) -> Tokenizer:
    assert build(folder, folder / "taskfile.json") == 0
    return Tokenizer.load(folder / "taskfile.json")


@pytest.fixture(scope="module")
def taskfiles() -> list[dict]:
    return [taskfile for _, taskfile in sample_taskfiles.compose_taskfiles(COUNT)]


def test_the_sample_is_valid_distinct_and_of_many_owners(taskfiles):
    assert all(map(JUDGE.is_valid, taskfiles))
    assert len(set(map(compact, taskfiles))) == COUNT >= 150
    assert len({name.split("__")[0] for name, _ in sample_taskfiles.compose_taskfiles(COUNT)}) >= 10


@pytest.mark.slow
def test_every_document_round_trips_with_its_keys_in_order(tokenizer, taskfiles):
    assert tokenizer.vocab_size() == VOCAB_SIZE
    characters = tokens = 0
    for taskfile in taskfiles:
        ids = tokenizer.encode(compact(taskfile))
        assert tokenizer.decode(ids) == (compact(taskfile), len(ids), len(ids))
        characters, tokens = characters + len(compact(taskfile)), tokens + len(ids)
    assert characters / tokens > 4


def test_the_verdict_on_damaged_documents_is_that_of_jsonschema(tokenizer, taskfiles):
    rng, pool, valid = random.Random(0), Pool(SCHEMA, taskfiles[:50]), 0
    for index in range(1500):
        text, names = mutate(taskfiles[index % COUNT], rng.choice((1, 1, 2, 3)), pool, rng)
        expected = "duplicate_key" not in names and JUDGE.is_valid(json.loads(text))
        valid += expected
        try:
            tokens = tokenizer.encode(text)
        except SchemaValidationError as error:
            assert not expected, (text, str(error))
        else:
            assert expected, text
            assert json.loads(tokenizer.decode(tokens)[0]) == json.loads(text)
    assert 200 < valid < 1300


@pytest.mark.slow
def test_random_walks_end_in_valid_documents(tokenizer):
    mask = np.zeros((1, (tokenizer.vocab_size() + 31) // 32), np.int32)
    for seed in range(300):
        rng, matcher, tokens = np.random.default_rng(seed), tokenizer.matcher(), []
        while matcher.fill_next_token_bitmask(mask) and len(tokens) < 80:
            allowed = allowed_tokens(mask[0])
            tokens.append(int(rng.choice(allowed)))
            assert matcher.accept_token(tokens[-1])
        ending = matcher.closing_tokens()
        assert matcher.accept_tokens(ending) and matcher.is_terminated()
        text, consumed, total = tokenizer.decode(tokens + ending)
        assert consumed == total and JUDGE.is_valid(json.loads(text)), text


def test_the_same_inputs_give_the_same_bytes(folder, tokenizer):
    assert build(folder, folder / "again.json") == 0
    assert (folder / "again.json").read_bytes() == (folder / "taskfile.json").read_bytes()
    listing = (folder / "taskfile.vocab.txt").read_text()
    assert "[<tasks:>]" in listing and "[<cmds:>]" in listing


def test_a_schema_may_start_with_a_byte_order_mark(tmp_path):
    (tmp_path / "schema.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(SCHEMA).encode())
    assert build_tokenizer.read_schema(tmp_path / "schema.json") == SCHEMA
    assert check_tokenizer.load_tokenizer(tmp_path / "schema.json", None).schema == SCHEMA


@pytest.mark.slow
@pytest.mark.parametrize(
    "schema, corpus, vocab_size, message",
    [
        ('{"items": {"$ref": "other.json"}}', "corpus", 900, "'$ref' at #/items"),
        ("{not JSON", "corpus", 900, "--schema {folder}/other.json is not JSON"),
        ("false", "corpus", 900, "no document of at most 100 levels is valid"),
        ('{"items":' * 400 + "true" + "}" * 400, "corpus", 900, "nested too deeply"),
        (json.dumps(SCHEMA), "corpus", 300, "this schema has 357 base symbols alone"),
        (json.dumps(SCHEMA), "corpus", 9000, "supports no more than"),
        ('{"type": "array"}', "corpus", 900, "holds no document that is valid under the schema"),
        (json.dumps(SCHEMA), "none", 900, "none is not a folder"),
        (json.dumps(SCHEMA), "empty", 900, "holds no .json, .yml or .yaml file"),
    ],
)
def test_an_input_that_does_not_serve_ends_with_one_sentence(folder, capsys, schema, corpus, vocab_size, message):
    (folder / "other.json").write_text(schema)
    (folder / "empty").mkdir(exist_ok=True)
    assert build(folder, folder / "out.json", "other.json", corpus, vocab_size) == 2
    output = capsys.readouterr()
    assert message.format(folder=folder) in output.err and output.err.count("\n") == 1
    assert not (folder / "out.json").exists()


def test_other_schemas_are_read_from_files(tmp_path, capsys):
    schema = {"type": "object", "additionalProperties": {"$ref": "http://a.b/t"}}
    (tmp_path / "s.json").write_text(json.dumps(schema))
    (tmp_path / "t.json").write_text(json.dumps({"$id": "http://a.b/t", "type": "string"}))
    for owner in "abc":
        (tmp_path / "corpus" / owner).mkdir(parents=True)
        (tmp_path / "corpus" / owner / "1.json").write_text('{"name": "name"}')
    paths = {"--schema": "s.json", "--corpus": "corpus", "--output": "out.json"}
    flags = [part for flag, name in paths.items() for part in (flag, str(tmp_path / name))] + ["--vocab-size", "269"]
    assert exit_code(build_tokenizer.main, flags) == 2
    assert "or with --resource http://a.b/t=FILE" in capsys.readouterr().err
    for resource in ("t.json", "http://a.b/t=t.json"):
        uri, _, name = resource.rpartition("=")
        argument = f"{uri}={tmp_path / name}" if uri else str(tmp_path / name)
        assert exit_code(build_tokenizer.main, [*flags, "--resource", argument]) == 0
        assert Tokenizer.load(tmp_path / "out.json").encode('{"name":"name"}')
    assert exit_code(build_tokenizer.main, [*flags, "--resource", str(tmp_path / "s.json")]) == 2
    assert "the schema has no $id" in capsys.readouterr().err


def test_an_output_that_cannot_be_written_is_refused_at_once(folder, capsys):
    assert build(folder, folder / "none/out.json") == 2
    assert "none is not a folder" in capsys.readouterr().err


def test_refused_documents_are_named_with_their_reason(folder, tmp_path, capsys):
    for index in range(9):
        owner = tmp_path / f"owner{index}"
        owner.mkdir()
        (owner / "Taskfile.yml").write_text("version: '3'\ntasks: {a: [ls]}\n" if index < 3 else "version: '3'\n")
    assert build(folder, folder / "out.json", corpus=tmp_path, vocab_size=358) == 0
    output = capsys.readouterr().out
    assert "rejected 'owner3/Taskfile.yml': $: a required key is missing: includes or tasks" in output
    assert "rejected 1 more" in output and "3 documents of 3 owners" in output


def test_a_listing_that_no_artifact_belongs_to_is_not_replaced(folder, tmp_path, capsys):
    (tmp_path / "x.vocab.txt").write_text("mine")
    assert build(folder, tmp_path / "x.json") == 2
    assert "x.vocab.txt would be replaced" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["x.vocab.txt"]
    assert (tmp_path / "x.vocab.txt").read_text() == "mine"
