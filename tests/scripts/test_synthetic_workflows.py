"""The embedded sample: valid, distinct, sensible workflows, equal for equal seeds."""

import json
import os
import re
import subprocess
import sys

import jsonschema_rs
import pytest
from check_jsonschema.builtin_schemas import get_builtin_schema

from scripts.make_synthetic_workflows import main
from tct_github_workflow.workflow_yaml import dump_workflow, load_workflow
from workflow_synth.compose import compose_workflows, resolve
from workflow_synth.parts import WithWords

COUNT = 400


@pytest.fixture(scope="module")
def sample():
    return compose_workflows(COUNT, seed=0)


@pytest.fixture(scope="module")
def jobs(sample):
    return [
        (f"{name}: {job_id}", workflow, job) for name, workflow in sample for job_id, job in workflow["jobs"].items()
    ]


def references(mapping, context):
    """Return every X of `context.X` in the expressions of a mapping; `if` is an expression without braces."""
    text = json.dumps(mapping)
    expressions = re.findall(r"\$\{\{.*?\}\}", text) + re.findall(r'"if": "(.*?)"[,}]', text)
    return {name for part in expressions for name in re.findall(rf"(?<![\w.-]){context}\.([\w-]+)", part)}


def needed(job):
    needs = job.get("needs", [])
    return [needs] if isinstance(needs, str) else needs


def artifacts(job, action):
    return [step["with"] for step in job.get("steps", []) if f"actions/{action}@" in step.get("uses", "")]


# -----------------------------------------------------------------------------
# the sample as a whole


@pytest.mark.parametrize("seed", [0, 1])
def test_every_workflow_is_schema_valid(seed):
    validator = jsonschema_rs.validator_for(get_builtin_schema("vendor.github-workflows"))
    invalid = {
        name: str(error.message)
        for name, workflow in compose_workflows(COUNT, seed)
        for error in validator.iter_errors(workflow)
    }
    assert not invalid


def test_all_workflows_and_their_names_are_distinct(sample):
    assert len(sample) == COUNT
    assert len({json.dumps(workflow, sort_keys=True) for _, workflow in sample}) == COUNT
    assert len({name for name, _ in sample}) == COUNT
    assert all(re.fullmatch(r"[a-z0-9-]+-\d{4}\.yml", name) for name, _ in sample)


def test_a_second_round_of_templates_adds_new_workflows():
    workflows = compose_workflows(1500, seed=0)
    assert len({json.dumps(workflow, sort_keys=True) for _, workflow in workflows}) == 1500


def test_a_smaller_count_is_the_beginning_of_a_larger_one(sample):
    assert json.dumps(compose_workflows(150, seed=0)) == json.dumps(sample[:150])


def test_another_seed_gives_another_sample(sample):
    kept = {json.dumps(workflow, sort_keys=True) for _, workflow in sample}
    other = {json.dumps(workflow, sort_keys=True) for _, workflow in compose_workflows(COUNT, seed=1)}
    assert len(kept & other) < COUNT / 10


def test_the_sample_does_not_depend_on_string_hashes(tmp_path):
    command = [sys.executable, "-m", "scripts.make_synthetic_workflows", "--count", "60", "--output"]
    for seed in "12":
        subprocess.run(
            [*command, tmp_path / seed], check=True, capture_output=True, env=os.environ | {"PYTHONHASHSEED": seed}
        )
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / seed).iterdir()} for seed in "12")
    assert len(one) == 60 and one == two


def test_the_sample_is_varied(sample):
    on = [workflow["on"] for _, workflow in sample]
    assert {type(events) for events in on} == {str, list, dict}
    assert len({event for events in on for event in ([events] if isinstance(events, str) else events)}) >= 12
    lengths = [dump_workflow(workflow).count("\n") for _, workflow in sample]
    assert min(lengths) <= 12 and max(lengths) >= 100
    for name in (
        "python",
        "node",
        "go",
        "rust",
        "java",
        "kotlin",
        "dotnet",
        "ruby",
        "php",
        "cpp",
        "elixir",
        "swift",
        "terraform",
        "mkdocs",
        "codeql",
        "stale",
    ):
        assert any(file.startswith(name) for file, _ in sample), name
    text = "".join(dump_workflow(workflow) for _, workflow in sample)
    for key in (
        "include",
        "exclude",
        "fail-fast",
        "services",
        "container",
        "working-directory",
        "tags",
        "concurrency",
        "environment",
        "outputs",
        "secrets",
        "timeout-minutes",
        "workflow_call",
    ):
        assert f"{key}:" in text, key


# -----------------------------------------------------------------------------
# each workflow: its references exist


def test_needs_name_other_jobs_without_a_cycle(sample):
    for name, workflow in sample:
        done, waiting = set(), dict(workflow["jobs"])
        while waiting:
            ready = [job_id for job_id, job in waiting.items() if done.issuperset(needed(job))]
            assert ready, name
            done.update(ready)
            waiting = {job_id: job for job_id, job in waiting.items() if job_id not in done}


def test_outputs_of_jobs_are_declared_and_needed(jobs):
    for where, workflow, job in jobs:
        assert references(job, "needs") <= set(needed(job)), where
        for other, output in re.findall(r"needs\.([\w-]+)\.outputs\.(\w+)", json.dumps(job)):
            assert output in workflow["jobs"][other]["outputs"], where
        for other, output in re.findall(r"jobs\.([\w-]+)\.outputs\.(\w+)", json.dumps(workflow["on"])):
            assert output in workflow["jobs"][other]["outputs"], where


def test_steps_refer_to_earlier_steps(jobs):
    for where, _, job in jobs:
        seen = set()
        for step in job.get("steps", []):
            assert references(step, "steps") <= seen, where
            seen |= {step["id"]} if "id" in step else set()
        assert references(job | {"steps": None}, "steps") <= seen, where


def test_matrix_variables_are_declared_and_used(jobs):
    for where, _, job in jobs:
        matrix = job.get("strategy", {}).get("matrix", {})
        declared = {name for name in matrix if name not in ("include", "exclude")}
        for combination in matrix.get("exclude", []):
            assert all(value in matrix[name] for name, value in combination.items()), where
        declared |= {name for combination in matrix.get("include", []) for name in combination}
        assert references(job, "matrix") == declared, where


def test_inputs_are_declared_and_used(sample):
    for name, workflow in sample:
        events = workflow["on"] if isinstance(workflow["on"], dict) else {}
        calls = [events.get(event) or {} for event in ("workflow_call", "workflow_dispatch")]
        declared = {name for call in calls for name in call.get("inputs", {})}
        assert references(workflow, "inputs") == declared, name


def test_artifacts_are_uploaded_before_they_are_downloaded(jobs):
    for where, workflow, job in jobs:
        names = [given["name"] for given in artifacts(job, "upload-artifact")]
        assert "matrix" not in job.get("strategy", {}) or all("${{ matrix." in name for name in names), where
        for given in artifacts(job, "download-artifact"):
            before = [
                kept["name"] for other in needed(job) for kept in artifacts(workflow["jobs"][other], "upload-artifact")
            ]
            wanted = given.get("name", given.get("pattern", "*")).removesuffix("*")
            assert any(kept.startswith(wanted) for kept in before), where


def test_no_placeholder_remains(sample):
    for name, workflow in sample:
        text = json.dumps(workflow)  # fails if a `...` remains
        assert not re.search(r"<[a-z]+>", text), name
        assert '": {}' not in text and '": []' not in text, name


def test_only_github_and_example_hosts_are_named(sample):
    for name, workflow in sample:
        text = json.dumps(workflow)
        hosts = {host.split(":")[0] for host in re.findall(r"https?://([\w.:-]+)", text)}
        assert all(re.fullmatch(r"(.*\.)?example\.com|localhost|github\.com", host) for host in hosts), name
        assert "registry-url" not in text, name


def test_yaml_round_trips_with_key_order(sample):
    for name, workflow in sample:
        text = dump_workflow(workflow)
        assert json.dumps(load_workflow(text)) == json.dumps(workflow), name
        assert re.search(r"^on:", text, re.MULTILINE), name


# -----------------------------------------------------------------------------
# templates


class First:
    """A random generator that always chooses the first option."""

    def choice(self, options):
        return options[0]


@pytest.mark.parametrize(
    "template, value",
    [
        ((1, 2), 1),
        ({"a": ..., "b": 2}, {"b": 2}),
        ({"a": {"b": (..., 3)}}, ...),
        ({"a": {}}, {"a": {}}),
        ([1, [2, [3]], ...], [1, 2, 3]),
        ({"a": 1, ...: ({"b": 2}, {"c": 3})}, {"a": 1, "b": 2}),
        ({("x", "y"): 1}, {"x": 1}),
        ("<n>", 20),
        ("node <n> in <dir>", ...),
        (WithWords("node <n> in <dir>", {"dir": ("web", "api")}), "node 20 in web"),
    ],
)
def test_a_template_resolves_to(template, value):
    result = resolve(template, {"n": (20, 22), "dir": ...}, First(), {})
    assert result == value and type(result) is type(value)


def test_a_workflow_uses_one_version_of_an_action():
    for _, workflow in compose_workflows(40):
        versions = {}
        for job in workflow["jobs"].values():
            for step in job.get("steps", []):
                action, _, version = step.get("uses", "").partition("@")
                assert versions.setdefault(action, version) == version


# -----------------------------------------------------------------------------
# command


def test_the_command_writes_the_same_files_again(tmp_path, capsys):
    folder = tmp_path / "new" / "sample"
    main(["--output", str(folder), "--count=12"])
    assert capsys.readouterr().out == f"12 workflows in {folder}\n"
    files = {path.name: path.read_text() for path in folder.iterdir()}
    assert files == {name: dump_workflow(workflow) for name, workflow in compose_workflows(12)}

    min(folder.iterdir()).unlink()
    main(["--output", str(folder), "--count", "12"])
    assert {path.name: path.read_text() for path in folder.iterdir()} == files


def test_an_edited_workflow_is_not_replaced(tmp_path, capsys):
    main(["--output", str(tmp_path), "--count=3"])
    edited, *others = sorted(tmp_path.iterdir())
    edited.write_text("mine")
    others[0].unlink()
    with pytest.raises(SystemExit):
        main(["--output", str(tmp_path), "--count=3"])
    assert f"{edited} exists with other content" in capsys.readouterr().err
    assert edited.read_text() == "mine" and not others[0].exists()


def test_a_folder_with_foreign_files_is_refused(tmp_path, capsys):
    (tmp_path / "mine.yml").write_text("on: push\n")
    with pytest.raises(SystemExit) as stop:
        main(["--output", str(tmp_path), "--count", "3"])
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert "mine.yml" in message and str(tmp_path) in message and message.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yml"]


@pytest.mark.parametrize(
    "arguments",
    [[], ["--output", "x", "--count", "0"], ["--output", "x", "--count=many"], ["--output", "x", "--sead", "1"]],
)
def test_a_wrong_argument_prints_one_sentence(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not list(tmp_path.iterdir())
