"""Derive a parser from a dataclass of settings: one field for each flag.

>>> from dataclasses import dataclass
>>> @dataclass(frozen=True)
... class Settings:
...     max_files: int = flag("input", "number of files to read", 10)
>>> parser = ArgumentParser()
>>> add_flags(parser, Settings)
>>> Settings(**vars(parser.parse_args(["--max-files", "3"])))
Settings(max_files=3)
"""

from dataclasses import MISSING, field, fields
from pathlib import Path

from script_tools.cli import ArgumentParser

METAVARS = {int: "N", float: "X", Path: "PATH"}


def flag(group: str, help: str, default=None, **options):
    """Return a field that becomes a flag in a group of the help. The options are those of add_argument.

    A default of False makes a switch, and MISSING a flag that must be given.
    """
    default = {"default_factory": list} if default == [] else {"default": default}
    return field(**default, metadata={"group": group, "help": help, **options})


def add_flags(parser: ArgumentParser, settings_class: type):
    """Add a flag to the parser for each field of a settings class: --max-files for the field max_files."""
    groups = {}
    for setting in fields(settings_class):
        options = dict(setting.metadata)
        title = options.pop("group")
        default = setting.default if setting.default_factory is MISSING else setting.default_factory()
        if default is MISSING:
            options["required"] = True
        elif default is False:
            options["action"] = "store_true"
        else:
            options["default"] = default
        if isinstance(default, (int, float)) and not isinstance(default, bool):
            options.setdefault("type", type(default))
        if options.get("type") in METAVARS:
            options.setdefault("metavar", METAVARS[options["type"]])
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        groups[title].add_argument("--" + setting.name.replace("_", "-"), **options)
