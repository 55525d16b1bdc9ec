"""The shortest endings: valid, short, and found without trying all orders of keys."""

import json

import jsonschema_rs
import pytest

from tct import Tokenizer


def provider(number: int) -> dict:
    """Return one of several alternatives: each says something about other keys."""
    own = {f"option{number}{letter}": {"type": "string"} for letter in "abcd"}
    return {
        "properties": {"provider": {"const": f"provider{number}"}, **own},
        "required": ["provider", f"option{number}a"],
    }


ALTERNATIVES = {"type": "object", "oneOf": [provider(number) for number in range(8)]}


@pytest.mark.parametrize("start", ["{", '{"other":1,', '{"option3b":1,', '{"provider":"provider5",'])
def test_an_object_with_many_alternatives_gets_the_fewest_members(start):
    tokenizer = Tokenizer(ALTERNATIVES)
    matcher, prefix = tokenizer.matcher(), tokenizer.encode_prefix(start)
    assert matcher.accept_prefix(prefix)
    closing = matcher.closing_tokens()
    document = json.loads(tokenizer.decode([*prefix[: prefix.n_stable], *closing])[0])
    assert jsonschema_rs.Draft7Validator(ALTERNATIVES).is_valid(document)
    given = json.loads(start.rstrip(",") + "}")
    assert given.items() <= document.items()
    assert len(document) == len(given.keys() | {"provider", "option"})
