"""One road for any schema: each command finds the tokenizer of the documents, and GitHub's rules do not apply."""

import json
import random
import shutil
from pathlib import Path

import jsonschema_rs
import make_documents
import pytest
from check_jsonschema.builtin_schemas import get_builtin_schema
from helpers import exit_code

import workflow_model
from scripts import generate_workflow, tct_eval, tct_train
from tct import Tokenizer
from tct.json_text import canonical
from tct_github_workflow.workflow_yaml import dump_document, load_json, load_workflow
from workflow_data import build_tokenizer, prepare, verify
from workflow_data.tokenizers import ArtifactTokenizer

TRACK = {
    "type": "object",
    "required": ["name"],
    "additionalProperties": False,
    "properties": {"name": {"type": "string"}, "genre": {"enum": ["jazz", "rock"]}, "minutes": {"type": "integer"}},
}
PLAYLIST = {
    "type": "object",
    "required": ["title", "tracks"],
    "additionalProperties": False,
    "properties": {
        "title": {"type": "string"},
        "on": {"type": "boolean"},
        "jobs": {"const": "$default-branch"},  # a word of GitHub, which means nothing here
        "tracks": {"type": "array", "minItems": 1, "items": TRACK},
    },
}
JUDGE = jsonschema_rs.Draft7Validator(PLAYLIST)
OWNERS = ("ada", "bob", "cleo", "dan")
WORDS = ("morning", "evening", "long", "blue", "train", "river")


def playlist(rng: random.Random) -> dict:
    def track():
        value = {"name": " ".join(rng.choices(WORDS, k=2)), "minutes": rng.randrange(10)}
        return value | rng.choice([{}, {"genre": "jazz"}])

    head = {"title": " ".join(rng.choices(WORDS, k=3))} | rng.choice([{}, {"on": True}, {"jobs": "$default-branch"}])
    return head | {"tracks": [track() for _ in range(rng.randrange(1, 5))]}


def write_documents(folder: Path, count: int):
    """Write playlists, half of them in YAML and half in JSON."""
    rng = random.Random(0)
    for index in range(count):
        path = folder / f"{rng.choice(OWNERS)}__music" / f"{index}.{('yml', 'json')[index % 2]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        value = playlist(rng)
        path.write_text(dump_document(value) if path.suffix == ".yml" else json.dumps(value))


def build(folder: Path, schema, output: Path) -> Path:
    """Build the artifact of a schema with the documents in a folder, and without a single merge if there are none."""
    output.with_name("schema.json").write_text(json.dumps(schema))
    if folder is None:
        Tokenizer(schema).save(output)
    else:
        flags = ["--schema", output.with_name("schema.json"), "--corpus", folder, "--vocab-size", 310]
        assert exit_code(build_tokenizer.main, [*flags, "--output", output]) == 0
    return output


def prepare_with(artifact, source, output, *flags) -> int:
    wanted = ["--tokenizer", artifact, "--input", source, "--output", output, "--context-size", 64, "--num-workers", 1]
    return exit_code(prepare.main, [*wanted, *flags])


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """documents/, playlist.json (the artifact) and prepared/."""
    folder = tmp_path_factory.mktemp("playlists")
    write_documents(folder / "documents", 60)
    artifact = build(folder / "documents", PLAYLIST, folder / "playlist.json")
    assert prepare_with(artifact, folder / "documents", folder / "prepared", "--split-by", "owner", "--states") == 0
    return folder


@pytest.fixture(scope="module")
def model(folder) -> Path:
    """The checkpoint folder of a few updates."""
    data = ["--data_dir", folder / "prepared", "--checkpoint_dir", folder / "model"]
    shape = ["--model_size", "tiny", "--context_size", 64, "--state_embedding"]
    run = ["--num_iterations", 4, "--device_batch_size", 2, "--device", "cpu", "--dtype", "float32"]
    assert exit_code(tct_train.main, [*data, *shape, *run]) == 0
    return folder / "model"


def message(capsys, main, arguments) -> str:
    """Return the one sentence with which a command refuses its arguments."""
    capsys.readouterr()
    assert exit_code(main, arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    return error


def generate(model, *flags):
    generate_workflow.main(["--checkpoint", str(model), "--max_tokens", "60", "--seed", "1", *map(str, flags)])


# -----------------------------------------------------------------------------
# the road


@pytest.mark.parametrize("language", make_documents.LANGUAGES)
def test_composed_documents_are_valid_and_distinct(language):
    validator = jsonschema_rs.validator_for(get_builtin_schema(f"vendor.{language}"))
    documents = [value for _, value in make_documents.compose_documents(language, 200)]
    assert all(map(validator.is_valid, documents)) and len(set(map(canonical, documents))) == 200
    assert all(load_workflow(dump_document(value)) == value for value in documents[:20])


def test_an_ignored_keyword_is_listed_once(folder, tmp_path, capsys):
    described = PLAYLIST | {"note": 1, "properties": PLAYLIST["properties"] | {"title": {"type": "string", "note": 2}}}
    build(folder / "documents", described | {"requird": []}, tmp_path / "noted.json")
    listed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("--schema")]
    assert listed == [
        "--schema: #/note asserts nothing (and note in 1 other places)",
        "--schema: #/requird asserts nothing",
    ]


def test_every_document_is_prepared_and_none_is_a_workflow(folder, capsys):
    metadata = json.loads((folder / "prepared/metadata.json").read_text())
    assert metadata["total_workflows"] == 60 and not metadata["skipped"]
    assert (folder / "prepared/tokenizer.json").read_bytes() == (folder / "playlist.json").read_bytes()
    fingerprint = Tokenizer.load(folder / "playlist.json").fingerprint
    assert metadata["tokenizer"] == {"name": "artifact", "fingerprint": fingerprint}
    assert metadata["vocab_size"] == 310 and metadata["n_states"] > 0
    assert exit_code(verify.main, ["--data_dir", folder / "prepared", "--num-workers", 1]) == 0


@pytest.mark.slow
def test_a_checkpoint_folder_alone_generates(model, tmp_path, capsys):
    alone = shutil.copytree(model, tmp_path / "elsewhere")
    for place in (alone, alone / "best"):
        for form, suffix in (("yaml", "yml"), ("json", "json")):
            output = tmp_path / f"{place.name}-{form}"
            generate(place, "--num_samples", 8, "--format", form, "--output", output)
            texts = [path.read_text() for path in sorted(output.glob(f"document_*.{suffix}"))]
            values = list(map(load_json if form == "json" else load_workflow, texts))
            assert len(values) == 8 and all(map(JUDGE.is_valid, values))
    assert not any("\non:" in text for text in texts)  # a reader of YAML 1.1 would read `true`
    generate(alone, "--no_constraint", "--format", "jsonl")
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["finish_reason"] in ("invalid", "length", "complete")


@pytest.mark.slow
@pytest.mark.parametrize("prompt", ["title: Mine\non: true\ntracks:\n  - name: blue tr", '{"title":"Mine","on":tr'])
def test_a_prompt_in_yaml_or_json_is_continued(model, tmp_path, capsys, prompt):
    (tmp_path / "begun").write_text(prompt)
    generate(model, "--prompt", tmp_path / "begun", "--num_samples", 2, "--format", "json")
    for line in capsys.readouterr().out.splitlines():
        value = json.loads(line)
        assert JUDGE.is_valid(value) and list(value)[:2] == ["title", "on"] and value["title"] == "Mine"


@pytest.mark.slow
def test_evaluation_asks_nothing_of_github(folder, model, tmp_path):
    paths = ["--checkpoint", model, "--data_dir", folder / "prepared", "--output", tmp_path / "eval"]
    assert exit_code(tct_eval.main, [*paths, "--num_samples", 3, "--max_tokens", 60]) == 0
    results = json.loads((tmp_path / "eval/eval.json").read_text())
    split = json.loads((folder / "prepared/metadata.json").read_text())["splits"]["val"]
    assert results["held_out"]["val_tokens"] == split["tokens"] and results["rules"] == "schema"
    assert results["samples"]["schema_valid"] == results["real"]["schema_valid"] == 1
    assert results["completion"].keys() == {"workflows", "key"} and not results["left_out"]
    assert not {"lint_clean", "rules_clean", "known_actions", "required_fields"} & results["samples"].keys()
    assert "by_schema" not in results and "fields" not in results
    assert results["held_out"]["kinds"].keys() <= {"structure", "keys", "enum values", "other text"}


@pytest.mark.slow
def test_an_experiment_writes_samples_of_the_language(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shape = ["--model_size=tiny", "--context_size=64", "--num_iterations=2", "--device_batch_size=1", "--device=cpu"]
    tct_train.main([f"--data_dir={folder / 'prepared'}", "--experiment=music", "--num_samples=2", *shape])
    samples = list(Path("experiments/music/generated_samples").rglob("*.yml"))
    assert len(samples) == 2 and all(JUDGE.is_valid(load_workflow(path.read_text())) for path in samples)


def test_documents_need_not_be_objects(tmp_path):
    build(None, {"type": "array", "items": {"type": "boolean"}}, tmp_path / "list.json")
    (tmp_path / "in").mkdir()
    for index, text in enumerate(("[true]\n", "- true\n- false\n", "[]\n")):
        (tmp_path / f"in/{index}.{('json', 'yml', 'yaml')[index]}").write_text(text)
    assert prepare_with(tmp_path / "list.json", tmp_path / "in", tmp_path / "out") == 0
    assert exit_code(verify.main, ["--data_dir", tmp_path / "out", "--num-workers", 1]) == 0
    tokenizer = ArtifactTokenizer.load(tmp_path / "list.json")
    for begun in ("", "- tr", "[tr", "[true, "):
        assert tokenizer.matcher().accept_prefix(tokenizer.encode_prefix(begun))


def test_rows_and_files_next_to_workflows_are_read(folder, tmp_path):
    (tmp_path / "repo/.github/workflows").mkdir(parents=True)
    (tmp_path / "repo/.github/workflows/ci.yml").write_text("on: push\njobs: {a: {runs-on: x}}\n")
    (tmp_path / "repo/list.yml").write_text("title: a\ntracks: [{name: b}]\n")
    lines = {"title": "c", "tracks": [{"name": "d"}]}, {"content": "title: e\ntracks: [{name: f}]\n"}
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for source, skipped, used in (("repo", {"not_schema_valid": 1}, 1), ("rows.jsonl", {}, 2)):
        assert prepare_with(folder / "playlist.json", tmp_path / source, tmp_path / "out") == 0
        metadata = json.loads((tmp_path / "out/metadata.json").read_text())
        assert (metadata["skipped"], metadata["total_workflows"]) == (skipped, used)


def test_shards_join_to_the_same_bytes(folder, tmp_path):
    for part in (1, 2):
        flags = ["--split-by", "owner", "--states", "--shard", f"{part}/2"]
        assert prepare_with(folder / "playlist.json", folder / "documents", tmp_path / str(part), *flags) == 0
    assert exit_code(prepare.main, ["--merge", tmp_path / "1", tmp_path / "2", "--output", tmp_path / "all"]) == 0
    for path in (tmp_path / "all").iterdir():
        assert path.read_bytes() == (folder / "prepared" / path.name).read_bytes(), path.name


# -----------------------------------------------------------------------------
# wrong or missing artifacts


@pytest.mark.parametrize(
    "name, change, expected",
    [
        ("schema.json", None, "schema.json is not a tokenizer, neither an artifact of build_tokenizer.py nor"),
        ("damaged.json", {"fingerprint": "0"}, "damaged.json is damaged"),
        ("old.json", {"format": 0}, "old.json has format 0, this version of tct reads 1: build it again"),
        ("bare.json", {"schema": None}, "bare.json does not contain its schema"),
        ("none.json", None, "No such file or directory: '{folder}/none.json'"),
    ],
)
def test_a_file_that_is_no_artifact_is_refused(folder, tmp_path, capsys, name, change, expected):
    path = folder / name
    if change:
        path.write_text(json.dumps(json.loads((folder / "playlist.json").read_text()) | change))
    arguments = ["--tokenizer", path, "--input", folder / "documents", "--output", tmp_path / "out"]
    error = message(capsys, prepare.main, arguments)
    assert "--tokenizer must be tct, bpe, bpe-unsplit or a file" in error and expected.format(folder=folder) in error


@pytest.mark.parametrize("flag", ["--clean", "--repair", "--near-dedup"])
def test_filters_of_workflows_are_refused(folder, tmp_path, capsys, flag):
    arguments = ["--tokenizer", folder / "playlist.json", "--input", folder / "documents", "--output", tmp_path / "out"]
    assert "are for GitHub workflows, and" in message(capsys, prepare.main, [*arguments, flag])


@pytest.mark.slow
def test_flags_of_workflows_are_refused(folder, model, capsys):
    for flags in (["--name", "x"], ["--on", "push"], ["--actions", "a/b@v1"], ["--known_actions"], ["--lint"]):
        error = message(capsys, generate_workflow.main, ["--checkpoint", model, *flags])
        assert f"error: {flags[0]} is for GitHub workflows, but {model} writes other documents" in error
    arguments = ["--checkpoint", model, "--rules", "github"]
    assert "--rules github is for GitHub workflows" in message(capsys, generate_workflow.main, arguments)
    arguments += ["--data_dir", folder / "prepared"]
    assert "--rules github is for GitHub workflows" in message(capsys, tct_eval.main, arguments)


@pytest.mark.slow
def test_a_missing_or_different_artifact_is_named(folder, model, tmp_path, capsys):
    shutil.copytree(model, tmp_path / "out/model")
    (tmp_path / "out/model/tokenizer.json").unlink()
    arguments = ["--checkpoint", tmp_path / "out/model"]
    error = message(capsys, generate_workflow.main, arguments)
    assert (
        "out/model has no tokenizer.json next to it or in the folder above: copy that of the prepared folder" in error
    )
    build(None, {"type": "boolean"}, tmp_path / "out/model/tokenizer.json")
    error = message(capsys, generate_workflow.main, arguments)
    assert "tokenizer.json is not the tokenizer that the checkpoint" in error and "copy that of the prepared" in error

    shutil.copytree(folder / "prepared", tmp_path / "prepared")
    (tmp_path / "prepared/tokenizer.json").unlink()
    arguments = ["--data_dir", tmp_path / "prepared", "--checkpoint"]
    error = message(capsys, tct_eval.main, [*arguments, model])
    assert "there is no" in error and "prepared/tokenizer.json: prepare the folder again" in error
    error = message(capsys, tct_eval.main, [*arguments, workflow_model.PATH])
    assert "is prepared for context_size 64 but the model has 512" in error
