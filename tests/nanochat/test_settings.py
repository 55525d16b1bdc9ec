"""The settings of a run: flags, checkpoint and preset, in this order."""

import subprocess
import sys
from pathlib import Path

import pytest

from model_config import PRESETS
from nanochat.settings import FLAGS, TrainSettings, flags_table, parse_flags


def resolve(*argv, saved=None, first_step=0):
    given = parse_flags(["--data_dir=d", *argv], PRESETS)
    return TrainSettings.resolve(given, PRESETS, saved, first_step)


def test_flags_override_the_checkpoint_and_it_the_preset():
    saved = resolve("--model_size=tiny", "--learning_rate=0.5", "--dropout=0.1").remembered()
    resumed = resolve("--dropout=0.2", saved=saved)
    assert (resumed.model_size, resumed.learning_rate, resumed.dropout) == ("tiny", 0.5, 0.2)
    assert resumed.weight_decay == PRESETS["tiny"]["weight_decay"]


def test_a_checkpoint_forgets_how_it_was_started():
    started = resolve("--device=cpu", "--checkpoint_dir=c", "--compile=off")
    forgotten = {"device", "checkpoint_dir", "compile", "resume_from_iteration"}
    assert started.remembered().keys() == FLAGS.keys() - forgotten | {"world_size"}


def test_settings_of_older_checkpoints_that_no_longer_exist_are_ignored():
    saved = resolve().remembered() | {"resid_scalars": False, "x0_scalars": False}
    assert resolve(saved=saved) == resolve()


def test_a_given_warmup_is_kept_in_a_short_run():
    assert resolve("--num_iterations=100").warmup_iters == 10
    assert resolve("--num_iterations=100", "--warmup_iters=50").warmup_iters == 50


@pytest.mark.parametrize("name", [name for name, flag in FLAGS.items() if flag.fixed])
def test_fixed_settings_cannot_change(name):
    saved = resolve("--state_embedding").remembered()
    given = {name: PRESETS["tiny"].get(name) if name != "model_size" else "tiny"}
    given[name] = given[name] if saved[name] != given[name] else "another"
    with pytest.raises(ValueError, match=f"cannot change {name} {saved[name]} -> {given[name]}"):
        TrainSettings.resolve(given, PRESETS, saved)


def test_the_table_has_every_flag():
    lines = flags_table().splitlines()
    assert [line.split("`")[1] for line in lines[2:]] == [f"--{name}" for name in FLAGS]


def test_settings_import_nothing_slow():
    code = "import sys, nanochat.settings; sys.exit(bool({'torch', 'numpy', 'matplotlib'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_readme_lists_all_flags():
    assert flags_table().strip() in Path(__file__).parents[2].joinpath("README.md").read_text()
