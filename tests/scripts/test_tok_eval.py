"""The comparison of tokenizers: its counts are right, on held-out workflows."""

import json

import pytest
from test_prepare import workflow

from scripts.tok_eval import main
from workflow_data.tokenizers import TCTTokenizer


@pytest.fixture
def source(tmp_path):
    for i in range(40):
        path = tmp_path / "in" / f"owner-{i % 10}" / f"{i}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(workflow(f"W{i}", "npm ci\nnpm test")))
    (tmp_path / "in" / "bad.yml").write_text("on: push\n")
    return tmp_path / "in"


def test_counts_equal_those_of_the_tokenizers(source, tmp_path, capsys):
    assert main(["--input", str(source), "--output", str(tmp_path / "out"), "--vocab_sizes", "300", "400"]) is None
    report = json.loads((tmp_path / "out" / "tok_eval.json").read_text())
    assert report["learned_from"] + report["counted"] == 40
    assert report["counted"] > 0 and report["counted"] % 4 == 0  # folders of four
    ours, small, large = (report["tokenizers"][name] for name in ("tct", "BPE 300", "BPE 400"))
    text = json.dumps(workflow("W1", "npm ci\nnpm test"), separators=(",", ":"))
    assert abs(ours["tokens_per_workflow"] - len(TCTTokenizer().encode(text))) < 4
    assert ours["tokens_per_workflow"] < large["tokens_per_workflow"] <= small["tokens_per_workflow"]
    for result in (ours, small, large):
        assert len(result["counts"]) == report["counted"]
        assert sum(result["counts"]) * result["characters_per_token"] == pytest.approx(report["characters"])
    assert (tmp_path / "out" / "tok_eval.png").read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert "tct" in printed and "BPE 300" in printed and "tiktoken is skipped" in printed


def test_missing_tiktoken_encodings_are_skipped(source, tmp_path, capsys):
    main(["--input", str(source), "--output", str(tmp_path / "out"), "--vocab_sizes", "--tiktoken", str(tmp_path)])
    assert capsys.readouterr().out.count("is skipped") == 3


def test_a_single_folder_is_split_by_file(source, tmp_path):
    main(["--input", str(source / "owner-1"), "--output", str(tmp_path / "out"), "--vocab_sizes"])
    report = json.loads((tmp_path / "out" / "tok_eval.json").read_text())
    assert report["learned_from"] and report["counted"] and report["learned_from"] + report["counted"] == 4


def test_too_few_workflows_are_refused(tmp_path, capsys):
    (tmp_path / "a.yml").write_text("on: push\njobs: {a: {runs-on: x}}\n")
    with pytest.raises(SystemExit) as end:
        main(["--input", str(tmp_path)])
    assert end.value.code == 2 and "1 valid workflows; two are needed" in capsys.readouterr().err
