"""Formats: the verdict is that of jsonschema-rs on texts of the format, and on texts close to it."""

import random

import jsonschema_rs
import pytest

from tct import CompiledSchema
from tct.formats import PATTERNS
from tct.regex import compile_pattern

CHARACTERS = "0123456789abcABCfFzZtT:-+./?#[]@%~!$&'();=_ v\x7f\"<>^`{|}\\é"
EXAMPLES = {
    "date": ["2024-02-29", "2000-02-29", "1900-02-29", "2023-04-31", "0000-01-01", "2024-1-01"],
    "time": ["23:59:60Z", "22:59:60Z", "12:00:00", "12:00:00.5+23:59", "12:00:00+24:00", "24:00:00Z"],
    "date-time": ["2024-01-01t12:00:00z", "2024-01-01 12:00:00Z", "2016-12-31T23:59:60Z"],
    "ipv4": ["255.255.255.255", "01.2.3.4", "256.1.1.1", "1.2.3"],
    "ipv6": ["::", "1:2:3:4:5:6:7::", "::1:2:3:4:5:6:7:8", "::ffff:1.2.3.4", "12345::", "fe80::1%eth0"],
    "uri": ["a:", "a", "http://[::1]:80", "http://a b", "http://a/%zz", "urn:a:b", "http://a#b#c", "1a:b"],
    "uri-reference": ["", "//a", "./1:b", "1:b", "%", "a#b#c"],
    "hostname": [
        "a",
        "a.b-c.1",
        "-a",
        "a-",
        "a--b",
        "ab--c",
        "a..b",
        "a.",
        "a_b",
        "é",
        "a" * 63,
        "a" * 64,
        ".".join(["a" * 49] * 5),
        ".".join(["a" * 49] * 5) + ".aaa",
        ".".join(["a" * 49] * 5) + ".aaaa",
    ],
    "email": [
        "a@b",
        "a.b+c@d.e",
        "a@b@c",
        ".a@b",
        "a..b@c",
        "a@-b",
        "é@a",
        "a",
        f"{'a' * 64}@b",
        f"{'a' * 65}@b",
        "a@[1.2.3.4]",
        "a@[IPv6:::1]",
        "a@[::1]",
        "a@[1.2.3]",
    ],
    "json-pointer": ["", "/a~0~1/é", "a", "/~2"],
    "relative-json-pointer": ["0", "01", "1#", "2/a", "#"],
}


def judge_of(name: str):
    return jsonschema_rs.Draft7Validator({"format": name})


@pytest.mark.parametrize("name", PATTERNS)
def test_examples(name):
    schema, judge = CompiledSchema({"type": "string", "format": name}), judge_of(name)
    verdicts = [is_valid(schema, text) for text in EXAMPLES[name]]
    assert verdicts == [judge.is_valid(text) for text in EXAMPLES[name]]
    assert {True, False} == set(verdicts)


@pytest.mark.parametrize("name", PATTERNS)
def test_texts_of_a_format_and_close_to_it(name):
    judge, random_ = judge_of(name), random.Random(0)
    automaton, schema = compile_pattern(PATTERNS[name]), CompiledSchema({"type": "string", "format": name})
    for _ in range(200):
        text = walk(automaton, random_)
        assert is_valid(schema, text) == judge.is_valid(text), text
        for _ in range(random_.randrange(1, 3)):
            at = random_.randrange(len(text) + 1)
            text = text[:at] + random_.choice(["", random_.choice(CHARACTERS)]) + text[at + random_.randrange(2) :]
        assert is_valid(schema, text) == judge.is_valid(text), text


def walk(automaton, random_) -> str:
    """Return a random text that an automaton accepts."""
    state, text = 0, ""
    ascii = [char for char in CHARACTERS if char.isascii()]
    while not automaton.accepts[state] or random_.random() < 0.9 and len(text) < 60:
        allowed = [char for char in ascii if automaton.live[automaton.step(state, char)]]
        if not allowed:
            break
        text += random_.choice(allowed)
        state = automaton.step(state, text[-1])
    return text


def is_valid(schema: CompiledSchema, text: str) -> bool:
    try:
        schema.encode(text)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize(
    "name, text",
    [
        ("hostname", "xn--fa-hia"),  # encodes another letter: its digits would have to be decoded
        ("email", '"a b"@c'),
        ("email", "Ann <a@b.c>"),
        ("email", f"a@{'.'.join(['b' * 49] * 5)}.bbb"),  # 255 characters
    ],
)
def test_other_departures_that_are_known(name, text):
    """Each is refused here although jsonschema-rs accepts it. Nothing is accepted that jsonschema-rs refuses."""
    assert judge_of(name).is_valid(text) and not is_valid(CompiledSchema({"type": "string", "format": name}), text)


def test_a_leap_second_with_an_offset_is_refused():
    """A departure from jsonschema-rs: to check it takes a state for each minute of the day."""
    text = "22:59:60-01:00"
    assert judge_of("time").is_valid(text) and not compile_pattern(PATTERNS["time"]).matches(text)
    assert all(compile_pattern(PATTERNS["time"]).matches(f"23:59:60{zone}") for zone in ("Z", "z", "-00:00"))
