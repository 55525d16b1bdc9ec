"""Evaluations are compared on one page, also with older ones, and without torch."""

import doctest
import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import exit_code
from test_figures import check_legible

from scripts import tct_eval
from workflow_eval import comparison

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
# The third one was made before some settings were recorded. The last one scored other workflows.
OLD = [EXPERIMENTS / name for name in ("exp001-small-ctx512-s512/eval-1.0", "exp001-tiny-ctx512-s512/eval-1.0")]
OLD += [EXPERIMENTS / "recipe/eval", EXPERIMENTS / "quickstart"]


def held_out(bits: float, **more) -> dict:
    losses = {key: bits for key in ("val_loss", "val_perplexity", "val_bits_per_byte")}
    intervals = {f"{key}_interval": [bits - 0.1, bits + 0.1] for key in losses}
    return {"val_workflows": 5, "val_tokens": 700, "val_json_bytes": 3_000, **losses, **intervals, **more}


def write_evaluation(folder: Path, bits: float, **more) -> Path:
    folder.mkdir(parents=True)
    results = {"checkpoint": f"out/{folder.parent.name}", "step": 3, "held_out": held_out(bits), "left_out": []}
    (folder / "eval.json").write_text(json.dumps(results | more))
    return folder


@pytest.fixture
def two(tmp_path) -> list[Path]:
    """Two evaluations without samples: of tct tokens and of BPE tokens, for the same workflows."""
    settings = {"seed": 0, "top_k": None, "temperature": 0.5}
    kinds = {kind: {"share_of_bits": 0.5} for kind in ("keys", "other text")}
    tiny = write_evaluation(tmp_path / "tiny/eval", 1.25, held_out=held_out(1.25, kinds=kinds), **settings)
    bpe = held_out(1.5, val_tokens=900)
    return [tiny, write_evaluation(tmp_path / "bpe/eval", 1.5, held_out=bpe, **settings | {"temperature": 1.0})]


def compare(folders: list[Path], output: Path) -> str:
    assert exit_code(tct_eval.main, ["--compare", *folders, "--output", output]) == 0
    return (output / "compare.md").read_text()


def row(text: str, name: str) -> list[str]:
    """Return the cells of the first row of a table that begins with this name."""
    [line, *_] = [line for line in text.splitlines() if line.startswith(f"| {name} |")]
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_examples_in_docstrings_hold():
    assert doctest.testmod(comparison).failed == 0


def test_the_page_has_the_figures_of_each_evaluation(two, tmp_path, capsys):
    text = compare(two, tmp_path / "out")
    assert row(text, "") == ["tiny", "bpe"]
    assert row(text, "`checkpoint`") == ["out/tiny", "out/bpe"]
    assert row(text, "`temperature`") == ["0.5", "1.0"]
    assert "The same in all: `seed` 0, `top_k` none." in text
    assert row(text, "bits per byte of compact JSON") == ["1.2500 (1.1500 to 1.3500)", "1.5000 (1.4000 to 1.6000)"]
    assert "compare bits per byte and not the loss of a token" in text and "## Samples" not in text
    assert "1.5000 (1.4000 to 1.6000)" in capsys.readouterr().out


def test_older_evaluations_can_be_compared(tmp_path):
    text = compare(OLD, tmp_path)
    page = (tmp_path / "compare.html").read_text()
    assert row(text, "`max_tokens`") == ["1024", "1024", "not recorded", "1024"]
    assert row(text, "no errors of GitHub's own parser") == ["", "2.0%", "32.0%", "", "98.0%"]
    assert row(text, "number") == ["100", "100", "100", "10", "100 / 10"]
    assert row(text, "the next key") == ["49 of 96, 51.0%", "40 of 96, 41.7%", "19 of 46, 41.3%", "7 of 10, 70.0%"]
    assert "different workflows, so their losses cannot be compared" in text
    assert "- quickstart: actionlint: " in text
    assert page.count("src=") == page.count('src="data:image/png;base64,') == 3
    assert '<meta name="viewport"' in page


@pytest.mark.parametrize("name", comparison.FIGURES)
@pytest.mark.parametrize("folders", [OLD[:2], OLD * 2], ids=len)
def test_the_figures_are_legible(name, folders):
    evaluations = {
        f"{index} {folder.parent.name}": comparison.read_evaluation(folder) for index, folder in enumerate(folders)
    }
    draw, _ = comparison.FIGURES[name]
    check_legible(draw(evaluations))


def test_shares_of_nothing_are_left_blank(tmp_path):
    samples = {"count": 1, "schema_valid": 1.0, "novel_steps": None}
    completion = {"workflows": 1, "key": {"asked": 0, "right": 0, "share": None}}
    folders = [
        write_evaluation(tmp_path / name, 1.5, samples=samples, real=samples, completion=completion) for name in "ab"
    ]
    text = compare(folders, tmp_path / "out")
    assert row(text, "steps that are in no training workflow") == ["", "", ""]
    assert row(text, "the next key") == ["0 of 0", "0 of 0"] and "](samples.png)" in text


def test_a_comparison_replaces_only_its_own_files(two, tmp_path, capsys):
    compare([*two, OLD[0]], tmp_path / "out")
    assert (tmp_path / "out/samples.png").is_file()
    assert "](samples.png)" not in compare(two, tmp_path / "out") and not (tmp_path / "out/samples.png").exists()
    for name in comparison.FILES:
        foreign = tmp_path / f"mine {name}" / name
        foreign.parent.mkdir()
        foreign.write_text("mine")
        assert exit_code(tct_eval.main, ["--compare", *two, "--output", foreign.parent]) == 2
        assert "is not an earlier result of this command" in capsys.readouterr().err
        assert [path.name for path in foreign.parent.iterdir()] == [name] and foreign.read_text() == "mine"


def test_comparing_imports_no_torch(two, tmp_path):
    code = "import sys; from scripts.tct_eval import main; main(sys.argv[1:]); assert 'torch' not in sys.modules"
    command = [sys.executable, "-c", code, "--compare", *two, f"--output={tmp_path / 'out'}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "written to" in done.stdout


@pytest.mark.parametrize(
    "flags, message",
    [
        (["tiny/eval"], "two folders of evaluations or more"),
        (["tiny/eval", "tiny/eval"], "each named once"),
        (["tiny/eval", "tiny"], "tiny has no eval.json: give a folder that scripts.tct_eval has written"),
        (["tiny/eval", "missing"], "missing has no eval.json"),
        (["tiny/eval", "list.json"], "list.json is not of an evaluation"),
        (["tiny/eval", "text.json"], "text.json is not of an evaluation"),
        (["tiny/eval", "other.json"], "other.json is not of an evaluation"),
        (["tiny/eval", "bpe/eval", "--num_samples=3"], "--num_samples does not apply to --compare"),
        (["tiny/eval", "bpe/eval", "--data_dir=x"], "--data_dir does not apply to --compare"),
    ],
)
def test_a_wrong_comparison_is_one_sentence(two, tmp_path, monkeypatch, capsys, flags, message):
    monkeypatch.chdir(tmp_path)
    for name, text in (("list", "[]"), ("text", "{"), ("other", '{"checkpoint": 1, "step": 2, "held_out": 3}')):
        Path(f"{name}.json").write_text(text)
    assert exit_code(tct_eval.main, ["--compare", *flags]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error
    assert not Path("out").exists()


def test_the_flags_of_an_evaluation_are_still_required(capsys):
    assert exit_code(tct_eval.main, []) == 2
    assert "required: --data_dir" in capsys.readouterr().err
