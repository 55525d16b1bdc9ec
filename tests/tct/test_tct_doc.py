"""The worked example of tct-bundle/docs/TCT.md: its commands run, and the output is what the page shows."""

import contextlib
import io
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(shutil.which("bash") is None, reason="the example is in bash")
def test_the_toy_example_of_tct_md_is_true(tmp_path, monkeypatch):
    page = (ROOT / "tct-bundle/docs/TCT.md").read_text("utf-8")
    example = page[page.index("## A toy") : page.index("## The workflow tokenizer")]
    blocks = re.findall(r"```(\w*)\n(.*?)```", example, re.DOTALL)
    [schema] = [text for language, text in blocks if language == "json"]
    [commands] = [text for language, text in blocks if language == "bash"]
    [shown] = [text for language, text in blocks if not language and "fingerprint" in text]
    (tmp_path / "step.json").write_text(schema, "utf-8")
    commands = commands.replace("python tct-bundle", f"'{sys.executable}' '{ROOT}/tct-bundle")
    commands = commands.replace("build_tokenizer.py", "build_tokenizer.py'")
    done = subprocess.run(["bash", "-ec", commands], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == shown

    monkeypatch.chdir(tmp_path)
    *prints, errors = [text for language, text in blocks if language == "python"]
    names = {}
    with contextlib.redirect_stdout(io.StringIO()) as output:
        exec("\n".join(prints), names)
    comments = re.findall(r"^# +(.*)$", "\n".join(prints), re.MULTILINE)
    assert " ".join(comments) == " ".join(output.getvalue().splitlines())
    for call, message in re.findall(r"^(.*?)  # ValueError: (.*)$", errors, re.MULTILINE):
        with pytest.raises(ValueError, match=re.escape(message)):
            exec(call, names)
