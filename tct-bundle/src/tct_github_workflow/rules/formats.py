"""The forms of texts that are not free: identifiers, actions, schedules, filter patterns and shells.

A format checks a complete text, and proposes how a text that is cut anywhere may go on (see endings.py).
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from .scope import IDENTIFIER


@dataclass(frozen=True)
class Format:
    """`fault` returns what is wrong with a text, or an empty string. `endings` proposes rests of a text.

    No text of the form starts in a way that `start` does not match.
    """

    rule: str
    fault: Callable[[str], str]
    endings: Callable[[str], Iterator[str]]
    start: re.Pattern = re.compile(r"(?s).*\Z")
    words: Sequence[str] = ()  # all texts of the form, if they are few


def one_of(rule: str, words: Sequence[str], message: str) -> Format:
    """Return the format of some words. `message` is what a finding says after the text."""

    def fault(text: str) -> str:
        return "" if text in known else f"{text!r} {message}"

    def endings(start: str) -> Iterator[str]:
        return (word[len(start) :] for word in words if word.startswith(start))

    known = frozenset(words)
    return Format(rule, fault, endings, words=words)


def _pattern(rule: str, pattern: str, message: str, *endings: str) -> Format:
    """Return the format of the texts that a regular expression matches."""
    match = re.compile(pattern).fullmatch
    return Format(rule, lambda text: "" if match(text) else f"{text!r} {message}", lambda text: iter(("", *endings)))


def _identifier_fault(text: str) -> str:
    if IDENTIFIER.match(text):
        return ""
    return f"{text!r} is not an identifier: letters, digits, - and _, at most 99, not starting with a digit or __"


IDENTIFIERS = Format(
    "identifier", _identifier_fault, lambda text: iter(["", "a", "_a", "b"]), re.compile(r"[A-Za-z_][A-Za-z0-9_-]*\Z")
)
NAME = _pattern("identifier", r"[A-Za-z_][A-Za-z0-9_-]*", "is not a name of letters, digits, - and _", "a")
VARIABLE = _pattern("environment-variable", r"[^&= \t]+", "contains a blank, & or =", "A")
NOT_EMPTY = _pattern("empty-value", r"(?s).+", "is empty", "a")


# ---------------------------------------------------------------------------------------------------------
# actions and reusable workflows

_REPOSITORY = r"[A-Za-z0-9][A-Za-z0-9_-]*/[A-Za-z0-9_.-]+"
_REF = r"(?!\S*\.\.)[^\s\x00-\x20\x7f~^:?*\[\\]+"  # https://git-scm.com/docs/git-check-ref-format
ACTION_OF_OTHERS = re.compile(rf"{_REPOSITORY}(?:/[^\s@]*)?@{_REF}")
WORKFLOW_OF_OTHERS = re.compile(rf"{_REPOSITORY}/[^\s@]+@{_REF}")
IMAGE = re.compile(r"docker://[A-Za-z0-9][A-Za-z0-9.:/_-]*(?:@sha256:[0-9a-f]+)?")


def action_fault(text: str) -> str:
    """Check `uses` of a step: owner/repository[/path]@ref, ./path or docker://image.

    https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-syntax#jobsjob_idstepsuses
    """
    if text.startswith("./"):
        return ""
    if text.startswith("docker://"):
        _, _, tag = text.removeprefix("docker://").partition(":")
        is_tag_missing = text.endswith(":") and not tag
        return "" if IMAGE.fullmatch(text) and not is_tag_missing else f"{text!r} is not an image"
    return "" if ACTION_OF_OTHERS.fullmatch(text) else f"{text!r} is not owner/repository@ref, ./path or docker://image"


def _action_endings(text: str) -> Iterator[str]:
    yield from ("", "a", "/a@v1", "a/a@v1", "@v1", "a@v1", "/", "//a", "docker://a"[len(text) :], "./")
    yield "sha256:0"[len(text.rpartition("@")[2]) :]


ACTION = Format("uses", action_fault, _action_endings)


def workflow_fault(text: str) -> str:
    """Check `uses` of a job: owner/repository/path@ref, or ./path.

    https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-syntax#jobsjob_iduses
    """
    if text.startswith("./"):
        return "" if len(text) > 2 and "@" not in text[3:] else f"{text!r} has a ref, but is in this repository"
    return "" if WORKFLOW_OF_OTHERS.fullmatch(text) else f"{text!r} is not owner/repository/path@ref or ./path"


def _workflow_endings(text: str) -> Iterator[str]:
    for path in ("", "a", "/a", "a/a", "/a/a", "a/a/a", "./a"):
        for extension in (".yml", "yml", "ml", "l", "", "aml"):
            for ref in ("", "@v1", "v1"):
                yield path + extension + ref


WORKFLOW = Format("uses", workflow_fault, _workflow_endings)


# ---------------------------------------------------------------------------------------------------------
# schedules

MONTHS = {name: number for number, name in enumerate("jan feb mar apr may jun jul aug sep oct nov dec".split(), 1)}
DAYS = {name: number for number, name in enumerate("sun mon tue wed thu fri sat".split())}
FIELDS = [  # name, least and greatest number, names
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day of the month", 1, 31, {}),
    ("month", 1, 12, MONTHS),
    ("day of the week", 0, 6, DAYS),
]
START = date(1970, 1, 1)


def cron_fault(text: str) -> str:
    """Check a schedule: five fields; at most once in five minutes.

    https://docs.github.com/en/actions/reference/workflows-and-actions/events-that-trigger-workflows#schedule
    """
    fields = text.split(" ")
    fields = [field for index, field in enumerate(fields) if field or index in (0, len(fields) - 1)]
    if len(fields) != 5:
        return f"{text!r} is not five fields, separated by blanks"
    try:
        schedule = [_cron_field(field, *of) for field, of in zip(fields, FIELDS)]
    except ValueError as error:
        return f"{error} in the schedule {text!r}"
    first, second = _first_two_minutes(*schedule, is_any_day="*" in (fields[2][0], fields[4][0]))
    if second is None:
        return f"the day of the schedule {text!r} does not exist"
    return f"the schedule {text!r} is more frequent than once in five minutes" if second - first < 5 else ""


def _first_two_minutes(
    minutes: set[int], hours: set[int], days: set[int], months: set[int], weekdays: set[int], is_any_day: bool
) -> tuple[int | None, int | None]:
    """Return when a schedule fires for the first and second time after the start of 1970, in minutes since then.

    actionlint compares only these two. If day and weekday are both restricted, one of them is enough.
    """
    of_day = sorted(60 * hour + minute for hour in hours for minute in minutes)
    found = []
    for number in range(10 * 366):
        day = START + timedelta(days=number)
        fits = [day.day in days, day.isoweekday() % 7 in weekdays]
        if day.month in months and (all(fits) if is_any_day else any(fits)):
            found += [24 * 60 * number + minute for minute in of_day if number or minute]
        if len(found) > 1:
            return found[0], found[1]
    return None, None


def _cron_field(field: str, name: str, least: int, greatest: int, names: dict[str, int]) -> set[int]:
    """Return the numbers that a field selects. Raises ValueError."""

    def number(text: str) -> int:
        value = names.get(text.lower(), int(text) if re.fullmatch("[0-9]{1,4}", text) else -1)
        if not least <= value <= greatest:
            raise ValueError(f"the {name} is not {least} to {greatest}: {text!r}")
        return value

    selected: set[int] = set()
    for item in field.split(","):
        base, slash, step = item.partition("/")
        first, dash, last = base.partition("-")
        if base == "*":
            start, end = least, greatest
        else:
            start = number(first)
            end = number(last) if dash else greatest if slash else start
        if slash and not (re.fullmatch("[0-9]{1,4}", step) and max(least, 1) <= int(step) <= greatest):
            raise ValueError(f"the step of the {name} is not {max(least, 1)} to {greatest}: {step!r}")
        if start > end:
            raise ValueError(f"the {name} ends before it starts: {item!r}")
        selected |= set(range(start, end + 1, int(step) if slash else 1))
    return selected


FIELD_RESTS = ["", "*", *"0123456789", "/5", "/15", "/30", "/59", "0/5", "-1", "12", "15", "23", "30", "31", "59"]
LATER_FIELDS = ["0 1 1 *".split(), "* * * *".split(), "0 * * 1".split()]  # after the minute


def _cron_endings(text: str) -> Iterator[str]:
    *whole, cut = text.split(" ")
    whole = [field for field in whole if field]
    if len(whole) > 4 or not all(map(_is_cron_field, whole, FIELDS)):
        return
    of = FIELDS[len(whole)]
    word = re.search(r"[A-Za-z]*\Z", cut)[0].lower()
    names = [name[len(word) :] for name in of[-1] if name.startswith(word)]
    for rest in (*FIELD_RESTS, *names):
        if _is_cron_field(cut + rest, of):
            for later in LATER_FIELDS:
                yield " ".join([rest, *later[len(whole) :]])


def _is_cron_field(field: str, of: tuple) -> bool:
    try:
        return bool(_cron_field(field, *of))
    except ValueError:
        return False


CRON = Format("cron", cron_fault, _cron_endings, re.compile(r"[0-9*A-Za-z][0-9A-Za-z*/, -]*\Z"))


# ---------------------------------------------------------------------------------------------------------
# filter patterns


def glob_fault(text: str, is_ref: bool) -> str:
    """Check a pattern of branches and tags, or of paths.

    https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-syntax#filter-pattern-cheat-sheet
    """
    if not text or "\0" in text:
        return f"the pattern {text!r} is empty, or has the character '\\0'"
    if not is_ref and (text != text.strip() or re.match(r"!?\.\.?(/|\Z)", text)):
        return f"the path {text!r} starts with ./ or has blanks around it"
    if is_ref and (text[0] == "/" or text[-1] in "/." and not text.endswith(("\\/", "\\."))):
        return f"the pattern {text!r} starts with / or ends with / or ."
    at, repeats = (1, False) if text[0] == "!" else (0, False)  # repeats: may ? or + follow?
    if text == "!":
        return "the pattern is only '!'"
    while at < len(text):
        char = text[at]
        at += 1
        if char == "\\":
            if at < len(text) and text[at] in "[?*" and is_ref or is_ref and text[at : at + 1] not in ("+", "\\", "!"):
                return f"the pattern {text!r} escapes a character that a branch cannot have"
            at += text[at : at + 1] in ("[", "?", "*", "+", "\\", "!") and at < len(text)
        elif char in "?+" and not repeats:
            return f"{char!r} follows no character in the pattern {text!r}"
        elif char == "[":
            end = _class_end(text, at)
            if end is None:
                return f"a bracket of the pattern {text!r} is not closed, empty, needless or in wrong order"
            at = end
        elif char in "\r\n" or is_ref and char in " \t~^:":
            return f"the pattern {text!r} has the character {char!r}"
        repeats = char not in "?+*"
    return ""


def _class_end(text: str, at: int) -> int | None:
    """Return where a class of characters ends that starts at `at`, behind its bracket. Return None if it is wrong."""
    n_chars = 0
    while at < len(text) and text[at] != "]":
        if text[at + 1 : at + 2] == "-":
            if at + 2 >= len(text) or text[at + 2] == "]" or text[at] > text[at + 2]:
                return None
            n_chars, at = n_chars + 2, at + 3
        else:
            n_chars, at = n_chars + 1, at + 1
    return at + 1 if at < len(text) and n_chars > 1 else None


def _glob_endings(text: str) -> Iterator[str]:
    yield from ("", "a", "]", "a]", "ab]", "*", "+", "!", "\\")
    yield f"{text[-2:-1]}]"  # the end of a range
    yield "-"
    yield f"{text[-2:-1]}a]"


REF = Format("glob", lambda text: glob_fault(text, True), _glob_endings)
PATH = Format("glob", lambda text: glob_fault(text, False), _glob_endings)


# ---------------------------------------------------------------------------------------------------------
# shells

SHELLS = {
    "any": ("bash", "pwsh", "python", "sh", "cmd", "powershell"),
    "windows": ("bash", "pwsh", "python", "cmd", "powershell"),
    "unix": ("bash", "pwsh", "python", "sh"),
}


def platform_of(labels: list[str]) -> str:
    """Return the key of SHELLS for the labels of a runner."""
    found = set()
    for label in map(str.lower, labels):
        if label.startswith("windows-") or label == "windows":
            found.add("windows")
        elif label.startswith(("macos-", "ubuntu-")) or label in ("macos", "linux"):
            found.add("unix")
    return found.pop() if len(found) == 1 else "any"


def shell_fault(text: str, platform: str = "any") -> str:
    """Check the name of a shell, or a command with {0} for the script.

    https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-syntax#jobsjob_idstepsshell
    """
    if "{0}" in text or text.lower() in SHELLS[platform]:
        return ""
    return f"there is no shell {text!r}: {', '.join(SHELLS[platform])}, or a command with {{0}}"


def _shell_endings(text: str) -> Iterator[str]:
    yield from (name[len(text) :] for name in SHELLS["any"] if name.startswith(text.lower()))
    yield from ("", " {0}", "{0}", "0}", "}")


SHELL = Format("shell", shell_fault, _shell_endings)
