"""The matcher against a slow, obvious twin: one that has read every document of a small schema.

The documents are found by trying all small values with jsonschema-rs, in every order of keys; the encoder writes
them in base symbols. A token is allowed if and only if some document goes on with its symbols: the twin looks.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from itertools import groupby, permutations, product
from random import Random

import jsonschema_rs
import pytest
from helpers import allowed
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tct import SchemaValidationError, Tokenizer, compile_json_schema
from tct.machine import MAX_DEPTH
from tct.symbols import END_STRING

Symbols = tuple[int, ...]


@dataclass
class Language:
    """A schema whose documents are all made of these parts, but for texts that may be longer."""

    schema: dict
    scalars: tuple = (None, True, "a", "b")
    keys: tuple[str, ...] = ("a", "b", "c")
    depth: int = 1  # levels of containers
    members: int = 2  # at most, of an object
    items: int = 2  # at most, of an array
    values: list = field(default_factory=list)  # to be tried instead of all those made of the parts
    longest: int | None = None  # bytes of the longest texts among the parts, where the schema has longer ones


def nested(count: int, around: Callable, value):
    """A value within `count` containers."""
    for _ in range(count):
        value = around(value)
    return value


AB_TEXTS = tuple("".join(text) for length in range(6) for text in product("ab", repeat=length))
KEY = "^(|y|z|x[ab]?|[ab]{2,5})$"  # 66 keys: too many to have symbols of their own
KEYS = ("", "y", "z", "x", "xa", "xb", *AB_TEXTS[3:])
CLOSED = {"type": "object", "additionalProperties": False}
AB = {"enum": ["a", "b"]}
LANGUAGES = {
    "enum": Language({"enum": ["a", "b", None, True, [], {"a": "b"}, ["a"]]}),
    "type": Language({"type": ["null", "boolean", "array"], "items": False}, scalars=(None, True, False)),
    "numbers": Language({"enum": [1, 12, 1.5, -1, "1"]}, scalars=(1, 12, 1.5, -1, "1")),
    "spelled strings": Language({"pattern": "^(a|ab|ba|é)?$", "type": "string"}, scalars=("", "a", "ab", "ba", "é")),
    "enum or string": Language(
        {"anyOf": [{"enum": ["a", "ab"]}, {"type": "string", "pattern": "^a?b{0,2}$"}]},
        scalars=("", "a", "ab", "abb", "b", "bb"),
    ),
    "oneOf": Language(
        {**CLOSED, "properties": {k: AB for k in "abc"}, "oneOf": [{"required": ["a"]}, {"required": ["b"]}]},
        members=3,
    ),
    "oneOf by value": Language(
        {**CLOSED, "properties": {"a": {"enum": ["a", "b", None]}, "b": AB, "c": AB}, "required": ["a"],
         "oneOf": [{"properties": {"a": {"enum": ["a", None]}, "b": {"const": "b"}}},
                   {"properties": {"a": {"enum": ["b", None]}, "c": {"const": "a"}}}]},
        members=3,
    ),
    "anyOf and allOf": Language(
        {**CLOSED, "properties": {k: {"enum": ["a", None]} for k in "abc"},
         "allOf": [{"anyOf": [{"required": ["a"]}, {"required": ["b"]}]}, {"not": {"required": ["a", "b"]}}]},
    ),
    "not": Language(
        {"type": ["array", "string"], "items": [AB, AB], "additionalItems": False, "pattern": "^[ab]$",
         "not": {"enum": [["a", "b"], ["b"], "a"]}},
    ),
    "if": Language(
        {**CLOSED, "properties": {"a": AB, "b": AB, "c": {"const": None}},
         "if": {"required": ["a"], "properties": {"a": {"const": "a"}}},
         "then": {"required": ["b"]}, "else": {"required": ["c"]}},
        members=3,
    ),
    "dependencies": Language(
        {**CLOSED, "properties": {k: {"enum": ["a", True]} for k in "abc"},
         "dependencies": {"a": ["b"], "b": {"properties": {"c": {"const": True}}, "required": ["c"]}}},
        members=3,
    ),
    "a default before the type it depends on": Language(
        {**CLOSED, "properties": {"a": {"enum": ["a", "b"]}, "b": {"enum": [None, True, "a"]}}, "required": ["a"],
         "if": {"properties": {"a": {"const": "a"}}}, "then": {"properties": {"b": {"type": "boolean"}}},
         "else": {"properties": {"b": {"type": ["null", "string"]}}}},
    ),
    "tuple": Language(
        {"type": "array", "items": [AB, {"type": "null"}, {"type": ["null", "boolean"]}], "minItems": 1,
         "additionalItems": False},
        scalars=(None, True, False, "a", "b"), items=3,
    ),
    "patternProperties": Language(
        {**CLOSED, "properties": {"c": {"const": None}},
         "patternProperties": {"^a?b?$": {"enum": ["a", None]}, "^aa?$": {"enum": ["a", "b"]}},
         "not": {"minProperties": 3}},
        keys=("", "a", "b", "ab", "aa", "c"),
    ),
    "spelled keys, one of them named": Language(
        {**CLOSED, "properties": {"ab": {"const": "a"}}, "patternProperties": {KEY: {"const": "a"}},
         "not": {"minProperties": 3}},
        scalars=("a",), keys=KEYS, items=0,
    ),
    "spelled keys, some needed": Language(
        {**CLOSED, "patternProperties": {KEY: {"enum": ["a", "b"]}}, "minProperties": 2, "required": ["xa"],
         "not": {"minProperties": 3}},
        scalars=("a", "b"), keys=KEYS, items=0,
    ),
    "minProperties": Language(
        {"type": "object", "additionalProperties": False, "minProperties": 2,
         "properties": {"c": {"const": "b"}}, "patternProperties": {"^[ab]c?$": {"const": "a"}}},
        scalars=("a", "b"), keys=("a", "b", "c", "ac", "bc"), members=5,
    ),
    "nested": Language(
        {**CLOSED, "properties": {"a": {**CLOSED, "properties": {"a": AB, "b": {"type": "null"}}, "minProperties": 1},
                                  "b": {"type": "array", "items": [AB], "additionalItems": False}}},
        scalars=(None, "a", "b"), keys=("a", "b"), depth=2,
    ),
    "array or object or string": Language(
        {"anyOf": [{"const": "a"}, {"type": "array", "items": [{"const": "a"}], "additionalItems": False},
                   {**CLOSED, "properties": {"a": {"$ref": "#/definitions/leaf"}}}],
         "definitions": {"leaf": {"oneOf": [AB, {"enum": ["b", None]}]}}},
    ),
    "texts of a length": Language(
        {"type": "array", "items": {"type": "string", "pattern": "^[ab]*$", "not": {"minLength": 3}},
         "not": {"minItems": 3}},
        scalars=("", "a", "b", "aa", "ab", "ba", "bb"), keys=(),
    ),
    "endless keys, one of them named": Language(
        {**CLOSED, "properties": {"ab": {"const": "b"}}, "patternProperties": {"^[ab]*$": {"enum": ["a", "b"]}},
         "required": ["a"], "not": {"minProperties": 3}},
        scalars=("a", "b"), keys=AB_TEXTS[:31], items=0, longest=4,
    ),
    "endless keys of two kinds": Language(
        {"type": "object", "patternProperties": {"[^ab]": False, "^b": {"const": None}},
         "additionalProperties": {"const": "a"}, "minProperties": 2, "not": {"minProperties": 3}},
        scalars=("a", None), keys=AB_TEXTS[:31], items=0, longest=4,
    ),
    "endless texts": Language(
        {"type": ["array", "string", "null"], "pattern": "^[ab]*$",
         "not": {"anyOf": [{"minItems": 3}, {"const": "ab"}]},
         "items": {"anyOf": [{"const": "b"}, {"type": ["null", "string"], "pattern": "^(ab?)*$"}]}},
        scalars=(None, *AB_TEXTS[:31]), keys=(), longest=4,
    ),
    "a value of open type that decides what is required": Language(
        {**CLOSED, "properties": {"a": {"type": ["null", "array", "object"], "maxItems": 0, "maxProperties": 0},
                                  "b": {"const": True}}, "required": ["a"],
         "if": {"properties": {"a": {"type": ["array"]}}}, "else": {"required": ["b"]}},
        scalars=(None, True), keys=("a", "b"),
        values=[{"a": a, **b} for a in (None, [], {}) for b in ({}, {"b": True})] + [
            {"b": True, "a": a} for a in (None, [], {})],
    ),
    "a string that decides what is required": Language(
        {**CLOSED, "properties": {"a": {"type": "string", "pattern": "^[ab]*$"}, "b": {"const": None}},
         "required": ["a"], "if": {"properties": {"a": {"enum": ["ab", "b"]}}}, "else": {"required": ["b"]}},
        scalars=(None, *AB_TEXTS[:31]), keys=("a", "b"), items=0, longest=4,
    ),
    "recursion": Language(
        {**CLOSED, "properties": {"a": {"anyOf": [{"type": "null"}, {"$ref": "#"}]}}, "required": ["a"]},
        values=[nested(levels, lambda inner: {"a": inner}, None) for levels in range(MAX_DEPTH + 3)],
    ),
    "recursion of arrays": Language(
        {"type": "array", "items": [{"$ref": "#"}], "additionalItems": False},
        values=[nested(levels, lambda inner: [inner], []) for levels in range(MAX_DEPTH + 3)],
    ),
}  # fmt: skip


def values(language: Language, depth: int) -> list:
    """All values made of the parts of a language, in all orders of keys."""
    if depth == 0:
        return list(language.scalars)
    inner = values(language, depth - 1)
    arrays = [list(items) for n in range(language.items + 1) for items in product(inner, repeat=n)]
    objects = [
        dict(zip(keys, children))
        for n in range(language.members + 1)
        for keys in permutations(language.keys, n)
        for children in product(inner, repeat=n)
    ]
    return [*language.scalars, *arrays, *objects]


def levels(value) -> int:
    """How many containers stand within each other."""
    if not isinstance(value, dict | list):
        return 0
    return 1 + max(map(levels, value.values() if isinstance(value, dict) else value), default=0)


@cache
def documents(name: str) -> list[Symbols]:
    """All documents of a language, in base symbols. The encoder must accept them, and nothing else."""
    language = LANGUAGES[name]
    compiled, judge = compile_json_schema(language.schema), jsonschema_rs.Draft7Validator(language.schema)
    written = []
    for value in language.values or values(language, language.depth):
        try:
            written.append(tuple(compiled.encode(value)))
            is_accepted = True
        except SchemaValidationError:
            is_accepted = False
        assert is_accepted == (judge.is_valid(value) and levels(value) <= MAX_DEPTH), value
    assert written and len(set(written)) == len(written)
    return written


class Twin:
    """Knows the symbols of all documents, as a tree: symbol -> tree of what follows."""

    def __init__(self, written: list[Symbols], symbols_of: list[Symbols], longest: int | None):
        self.symbols_of, self.longest = symbols_of, longest
        self.root: dict = {}
        for symbols in written:
            tree = self.root
            for symbol in symbols:
                tree = tree.setdefault(symbol, {})

    def spelled(self, tokens: list[int]) -> list[int | None]:
        """The symbols of some tokens; None for what is none."""
        known = range(1, len(self.symbols_of))
        return [symbol for token in tokens for symbol in (self.symbols_of[token] if token in known else [None])]

    def after(self, tokens: list[int], tree: dict | None = None) -> dict | None:
        """What may follow these tokens; None where they are not allowed. Nothing follows a whole document."""
        tree = self.root if tree is None else tree
        for symbol in self.spelled(tokens):
            tree = tree.get(symbol)
            if tree is None:
                return None
        return tree

    def can_tell(self, tokens: list[int]) -> bool:
        """Has it read all that may follow? Not after a text as long as the longest."""
        if self.longest is None:
            return True
        texts = groupby(self.spelled(tokens), lambda symbol: symbol is not None and symbol < END_STRING)
        return all(len(list(text)) < self.longest for is_text, text in texts if is_text)

    def told(self, tokens: list[int], candidates: Iterable[int]) -> list[int]:
        """Those of the candidates for the next token about which it can tell."""
        return [token for token in candidates if self.can_tell([*tokens, token])]

    def allowed(self, tokens: list[int]) -> list[int]:
        """The tokens that may come next, of those about which it can tell."""
        tree = self.after(tokens)
        here = [token for token in range(len(self.symbols_of)) if self.after([token], tree) is not None]
        return self.told(tokens, here)

    def accepted(self, tokens: list[int], more: list[int]) -> int:
        """How many of more tokens are allowed, one after the other."""
        return max(n for n in range(len(more) + 1) if self.after(tokens + more[:n]) is not None)


@cache
def pair(name: str, seed: int) -> tuple[Tokenizer, Twin]:
    """A tokenizer for a language, with merges by chance, and its twin; seed 0 has no merges."""
    language, written, random = LANGUAGES[name], documents(name), Random(seed)
    symbols_of = list(Tokenizer(language.schema).bpe.symbols_of)
    merges = []
    while len(merges) < 40 * (seed > 0):
        left, right = two_tokens(random.choice(written), symbols_of, random)
        merges.append((left, right))
        if symbols_of[left] + symbols_of[right] not in symbols_of:
            symbols_of.append(symbols_of[left] + symbols_of[right])
    return Tokenizer(language.schema, merges), Twin(written, symbols_of, language.longest)


def two_tokens(document: Symbols, symbols_of: list[Symbols], random: Random) -> tuple[int, int]:
    """Two tokens that meet somewhere in a document, now and then any two."""
    if random.random() < 0.2 or len(document) < 2:
        return random.randrange(1, len(symbols_of)), random.randrange(1, len(symbols_of))
    at = random.randrange(1, len(document))
    left = [t for t, symbols in enumerate(symbols_of) if document[:at][-len(symbols) :] == symbols]
    right = [t for t, symbols in enumerate(symbols_of) if document[at:][: len(symbols)] == symbols]
    return random.choice(left), random.choice(right)


@pytest.mark.slow
@pytest.mark.parametrize("name", LANGUAGES)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_mask_after_every_beginning_of_a_document_is_that_of_the_twin(name, seed):
    tokenizer, twin = pair(name, seed)
    written = documents(name)
    seen = set()
    for symbols in Random(seed).sample(written, min(25, len(written))):
        matcher, tokens = tokenizer.matcher(), []
        for symbol in symbols:
            if tuple(tokens) not in seen and twin.can_tell(tokens):
                seen.add(tuple(tokens))
                assert twin.told(tokens, allowed(matcher)) == twin.allowed(tokens)
            assert matcher.accept_token(symbol)
            tokens.append(symbol)
        assert matcher.is_terminated() and allowed(matcher) == []


class MatcherBesideTwin(RuleBasedStateMachine):
    """Both are led through the same calls and must answer alike after each."""

    name: str  # of the language

    @initialize(seed=st.integers(0, 3))
    def start(self, seed):
        tokenizer, self.twin = pair(self.name, seed)
        self.matcher, self.tokens = tokenizer.matcher(), []
        self.forks = []

    @rule(choice=st.integers(0))
    def accept(self, choice):
        if options := self.twin.allowed(self.tokens):
            token = options[choice % len(options)]
            assert self.matcher.accept_token(token)
            self.tokens = [*self.tokens, token]

    @rule(token=st.integers(-2, 400))
    def accept_any(self, token):
        if not self.twin.can_tell([*self.tokens, token]):
            return
        is_allowed = self.twin.after([*self.tokens, token]) is not None
        assert self.matcher.accept_token(token) == is_allowed
        self.tokens = self.tokens + [token] * is_allowed

    @rule(choices=st.lists(st.integers(0), max_size=4), last=st.none() | st.integers(0, 400))
    def accept_several(self, choices, last):
        more = []
        for choice in choices:
            if options := self.twin.allowed(self.tokens + more):
                more.append(options[choice % len(options)])
        more += [] if last is None else self.twin.told(self.tokens + more, [last])
        count = self.twin.accepted(self.tokens, more)
        assert self.matcher.validate_tokens(more) == count
        assert self.matcher.accept_tokens(more) == (count == len(more))
        self.tokens = self.tokens + more * (count == len(more))

    @rule(count=st.integers(0, 5), again=st.booleans())
    def roll_back(self, count, again):
        kept = max(len(self.tokens) - count, 0)
        taken = self.tokens[kept:]
        self.matcher.rollback(len(taken))
        self.tokens = self.tokens[:kept]
        if again:
            self.the_mask_is_the_same()
            assert self.matcher.accept_tokens(taken)
            self.tokens = self.tokens + taken

    @rule()
    def roll_back_too_far(self):
        with pytest.raises(ValueError):
            self.matcher.rollback(len(self.tokens) + 1)

    @rule()
    def fork(self):
        self.forks.append((self.matcher.fork(), list(self.tokens)))

    @precondition(lambda self: self.forks)
    @rule()
    def go_on_with_a_fork(self):
        forked = self.forks.pop(0)
        self.forks.append((self.matcher, self.tokens))
        self.matcher, self.tokens = forked

    @rule()
    def reset(self):
        self.matcher.reset()
        self.tokens = []

    @rule()
    def complete(self):
        ending = self.matcher.closing_tokens()
        assert self.twin.after(self.tokens + ending) == {}
        assert self.matcher.accept_tokens(ending)
        self.tokens = self.tokens + ending

    @invariant()
    def the_mask_is_the_same(self):
        assert self.twin.told(self.tokens, allowed(self.matcher)) == self.twin.allowed(self.tokens)

    @invariant()
    def it_is_terminated_where_nothing_may_follow(self):
        is_whole = self.twin.after(self.tokens) == {}
        assert self.matcher.is_terminated() == self.matcher.is_completed() == is_whole
        assert bool(self.matcher.closing_tokens()) != is_whole

    @invariant()
    def what_is_called_forced_is_in_every_document(self):
        forced = self.matcher.compute_ff_tokens()
        options = allowed(self.matcher)
        assert forced[:1] == options or len(options) != 1
        tree = self.twin.after(self.tokens)
        for symbol in self.twin.spelled(forced):
            assert list(tree) == [symbol]
            tree = tree[symbol]


@pytest.mark.slow
@pytest.mark.parametrize("name", LANGUAGES)
def test_matcher_and_twin_answer_alike_whatever_they_are_asked(name):
    beside = type("Beside", (MatcherBesideTwin,), {"name": name})
    phases = set(Phase) - {Phase.shrink, Phase.explain}  # they would take minutes
    run_state_machine_as_test(beside, settings=settings(max_examples=12, stateful_step_count=20, phases=phases))
