"""Define the flags of prepare_training_data.py as a dataclass."""

import os
from argparse import SUPPRESS
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path

from script_tools.cli import ArgumentParser, argument_options
from workflow_data.tokenizers import (
    MAX_TOKENS,
    NAMES,
    TCT,
    ArtifactTokenizer,
    TCTTokenizer,
    is_artifact,
    load_tokenizer,
)

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
SOURCES, FILTERS, WINDOWS, SPLIT = "sources", "filters", "windows", "split"
RUN = "run"  # these flags do not change what is written
COUNTS = ("context_size", "stride", "window_step", "max_windows_per_workflow", "max_files", "num_workers")
SHARES = ("train_split", "test_split", "near_dedup")
PATHS = {"nargs": "+", "action": "extend", "metavar": "PATH"}
NEAR = "drop a workflow if an earlier one shares at least this fraction of its steps (without X: %(const)s)"


def flag(group: str, help: str, default=None, **options):
    """Return a field that becomes a flag in a group of --help, with these options of `argument_options`.

    The default MISSING makes a flag that must be given.
    """
    if default is MISSING:
        options["required"] = True
    shown = None if default in (MISSING, ()) else default
    return field(default=default, metadata={"group": group, **argument_options(help, shown, **options)})


@dataclass(frozen=True, kw_only=True)
class PrepareSettings:
    """The settings of one preparation. Raise one ValueError that names every setting that is wrong."""

    input: Sequence[str] = flag(
        SOURCES, "folders of .json, .yml, .yaml files or checkouts; or .jsonl or .parquet files", (), **PATHS
    )
    dataset: str | None = flag(SOURCES, "data set to stream with datasets.load_dataset")
    data_dir: str | None = flag(SOURCES, "folder of the data set, as for datasets.load_dataset", metavar="DIR")
    split: str = flag(SOURCES, "split of the data set", "train")
    text_column: str = flag(SOURCES, "column of a table with the text of a workflow", "content")
    path_column: str = flag(SOURCES, "column of a table with the path of a workflow", "path")
    path_glob: str | None = flag(SOURCES, "read only paths that end like this: '.github/workflows/*'", metavar="GLOB")
    max_files: int | None = flag(SOURCES, "read only the first N workflows", type=int)
    repair: bool = flag(FILTERS, "fix workflows that GitHub accepts and the schema rejects", False)
    clean: bool = flag(FILTERS, "skip workflows that break GitHub's rules beyond the schema", False)
    near_dedup: float | None = flag(FILTERS, NEAR, type=float, nargs="?", const=0.85)
    tokenizer: str = flag(
        WINDOWS,
        "tct; or a file that build_tokenizer.py made for another schema; or a baseline learned from the training "
        "split: bpe, or bpe-unsplit, whose merges cross word boundaries; or the tokenizer.json of an earlier baseline",
        TCT,
    )
    states: bool = flag(WINDOWS, "also write *_states.pt: the schema position after each token", False)
    context_size: int = flag(WINDOWS, "tokens in a window", 512)
    stride: int = flag(WINDOWS, "tokens per step of the position token", 32)
    window_step: int | None = flag(
        WINDOWS, "tokens between the starts of two windows, a multiple of --stride (default: --stride)", type=int
    )
    max_windows_per_workflow: int | None = flag(
        WINDOWS, "keep at most N evenly spread windows of each training workflow", type=int
    )
    train_split: float = flag(SPLIT, "fraction for training; the rest is for validation", 0.8)
    test_split: float = flag(SPLIT, "fraction for a third split, test.pt", 0.0)
    split_by: str = flag(
        SPLIT,
        "what stays in one split: a file, a folder, an owner (of folders OWNER__REPOSITORY), or all rows with the "
        "same value in the column of this name",
        "file",
    )
    seed: int = flag(SPLIT, "seed of the split", 0)
    output: Path = flag(RUN, "folder to write; an earlier prepared folder is replaced", MISSING, type=Path)
    num_workers: int = flag(RUN, "processes, by default one per core; the output does not depend on it", CORES)
    resume: bool = flag(RUN, "continue an interrupted run that had the same flags", False)
    shard: str | None = flag(RUN, "process only part I of N, as input for --merge", metavar="I/N")
    merge: list[Path] | None = flag(RUN, "join the outputs of these shards", type=Path, nargs="+", metavar="SHARD")

    def __post_init__(self):
        faults = (
            [] if self.merge else [*self._find_wrong_numbers(), *self._find_other_faults()]
        )  # shards have no faults
        if faults:
            raise ValueError("; ".join(faults))

    def recorded(self) -> dict:
        """Return the settings that decide what is written. A resumed run and all shards must agree on them."""
        return {name: getattr(self, name) for name in RECORDED} | {"input": list(self.input)}

    @property
    def is_workflow(self) -> bool:
        """Are the documents GitHub workflows, not those of another schema?"""
        return not (self.is_file and is_artifact(self.tokenizer))

    @property
    def is_bpe(self) -> bool:
        """Are the tokens those of a baseline, not of a schema?"""
        return self.tokenizer != TCT and self.is_workflow

    @property
    def is_file(self) -> bool:
        """Does --tokenizer name a file?"""
        return self.tokenizer not in (TCT, *NAMES)

    def document_tokenizer(self) -> TCTTokenizer:
        """Return the tokenizer that decides which documents are valid. Only a baseline has other tokens."""
        return TCTTokenizer() if self.is_workflow else ArtifactTokenizer.load(self.tokenizer)

    def shard_numbers(self) -> tuple[int, int]:
        """Return I and N of --shard I/N, or (1, 1)."""
        part, _, parts = (self.shard or "1/1").partition("/")
        return int(part), int(parts)

    def _find_wrong_numbers(self) -> list[str]:
        faults = []
        for name, value in vars(self).items():
            if name in COUNTS and value is not None and value < 1:
                faults.append(f"{_flag(name)} must be at least 1, not {value}")
            if name in SHARES and not 0 <= (value or 0) <= 1:
                faults.append(f"{_flag(name)} must be from 0 to 1, not {value}")
        if faults:
            return faults
        step = self.window_step or self.stride
        if step % self.stride:
            faults.append(f"--window-step {step} must be a multiple of --stride {self.stride}")
        if step > self.context_size:
            faults.append(
                f"windows every {step} tokens would skip tokens; "
                f"--stride and --window-step must be at most --context-size {self.context_size}"
            )
        if self.train_split + self.test_split > 1:
            faults.append(f"--train-split {self.train_split} plus --test-split {self.test_split} is more than 1")
        return faults

    def _find_other_faults(self) -> list[str]:
        faults = []
        if not self.input and not self.dataset:
            faults.append("--input or --dataset is needed to find workflows")
        if self.shard:
            part, _, parts = self.shard.partition("/")
            if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
                faults.append(f"--shard must be I/N with I from 1 to N, not {self.shard}")
        try:
            faults += self._find_faults_of_tokenizer()
        except (ValueError, OSError) as error:
            faults.append(f"--tokenizer must be tct, {', '.join(NAMES)} or a file: {error}")
        return faults

    def _find_faults_of_tokenizer(self) -> Iterator[str]:
        if self.is_file:
            load_tokenizer(self.tokenizer)
        if self.states and self.is_bpe:
            yield "--states needs --tokenizer tct or an artifact: other tokens have no schema positions"
        elif self.states and (positions := self.document_tokenizer().library.n_states()) > MAX_TOKENS:
            yield f"--states: the schema has {positions:,} positions, but int16 holds {MAX_TOKENS:,}"
        if not self.is_workflow and (self.repair or self.clean or self.near_dedup is not None):
            yield f"--repair, --clean and --near-dedup are for GitHub workflows, and {self.tokenizer} is not"


RECORDED = [setting.name for setting in fields(PrepareSettings) if setting.metadata["group"] != RUN]


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def parse_settings(argv: list[str] | None) -> PrepareSettings:
    """Parse the command line. Raise ValueError if it is wrong."""
    parser = ArgumentParser(
        description="Turn GitHub workflows, or documents of another schema, into training windows.",
        epilog="Flags can be written with - or _. tct-bundle/docs/DATA.md lists the sources, the reasons why a "
        "workflow is skipped, and how to use shards.",
        argument_default=SUPPRESS,  # what is not given has the default of its field
    )
    groups = {group: parser.add_argument_group(group) for group in (SOURCES, FILTERS, WINDOWS, SPLIT, RUN)}
    for setting in fields(PrepareSettings):
        options = dict(setting.metadata)
        groups[options.pop("group")].add_argument(_flag(setting.name), **options)
    return PrepareSettings(**vars(parser.parse_args(argv)))
