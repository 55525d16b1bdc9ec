"""The analysis of a schema is fast and complete: it finds what a slow, obvious twin finds, and keeps time limits."""

from contextlib import suppress
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tct import TimeLimitError, UnsupportedSchemaError, compile_json_schema
from tct.assertions import TYPES, Ref
from tct.formula import atom
from tct.reachability import Reachability
from tct.schema import SchemaCompiler
from tct.time_limit import check_time
from workflow_data import build_tokenizer

KEYS = st.sampled_from(["a", "b", "c"])
SETS = st.lists(KEYS, unique=True, min_size=1)


class Twin(Reachability):
    """Computes all values again until none changes, and tries members in every order."""

    def __init__(self, formula_at):
        super().__init__(formula_at)
        self._found = {}
        self._is_solving = False

    def value(self, residuals):
        if residuals not in self._found:
            self._found[residuals] = {}
            if not self._is_solving:
                self._is_solving, before = True, None
                while self._found != before:
                    before = dict(self._found)
                    for each in before:
                        self._found[each] = self._least(self.outcomes_of_type(each, type) for type in TYPES)
                self._is_solving = False
        return self._found[residuals]

    def _container(self, residuals, type):
        return self.object(residuals, frozenset()) if type == "object" else self.array(residuals)

    def object(self, residuals, used):
        def moves(state):
            residuals, used = state
            for key in set(self.names(residuals)) - used:
                for cost, then in self._reads(self.named_member(residuals, key)):
                    yield cost, (then, used | {key})
            for matching in self.open_key_matches(residuals):
                for cost, then in self._reads(self.member(residuals, None, matching)):
                    yield cost, (then, used)

        return self._ends((residuals, used), moves)

    def array(self, residuals):
        def moves(state):
            return ((cost, (then,)) for cost, then in self._reads(self.item(state[0])))

        return self._ends((residuals,), moves)

    def _ends(self, start, moves):
        depths, todo = {start: 1}, [start]
        for state in todo:
            for cost, then in moves(state):
                depth = max(depths[state], cost)
                if depth < depths.get(then, depth + 1):
                    depths[then] = depth
                    todo.append(then)
        return self._least({self.end(state[0]): depth} for state, depth in depths.items())


def schemas_over(inner):
    def of(**keywords):
        return st.fixed_dictionaries({}, optional=keywords)

    return st.one_of(
        of(type=st.sampled_from(["object", "array", "string"]), properties=st.dictionaries(KEYS, inner, max_size=3),
           required=SETS, additionalProperties=inner, minProperties=st.integers(0, 3), maxProperties=st.integers(0, 3)),
        of(patternProperties=st.dictionaries(st.sampled_from(["^[ab]", "c$"]), inner, max_size=2),
           dependencies=st.dictionaries(KEYS, inner | SETS, max_size=2)),
        of(items=inner, minItems=st.integers(0, 2), maxItems=st.integers(0, 2), contains=inner),
        of(allOf=st.lists(inner, min_size=1, max_size=2), anyOf=st.lists(inner, min_size=1, max_size=3),
           oneOf=st.lists(inner, min_size=1, max_size=3)),
        of(**{"not": inner, "if": inner, "then": inner, "else": inner}),
    )  # fmt: skip


LEAVES = [{"type": "string"}, {"const": "x"}, {"pattern": "^x"}, {}, False, {"properties": {"a": {"$ref": "#"}}}]
SCHEMAS = st.recursive(st.sampled_from(LEAVES), schemas_over, max_leaves=6)


@settings(max_examples=300, deadline=None)
@given(SCHEMAS, SETS)
def test_outcomes_and_depths_are_those_of_the_twin(schema, used):
    formulas = SchemaCompiler(schema, {}).formulas
    root, used = (atom(Ref("#")),), frozenset(used)
    fast, slow = Reachability(formulas.__getitem__), Twin(formulas.__getitem__)
    try:
        expected = slow.value(root)
    except UnsupportedSchemaError as error:
        with pytest.raises(UnsupportedSchemaError, match=error.keyword):
            fast.value(root)
        return
    assert fast.value(root) == expected
    for residuals, type in list(fast._containers):
        if type == "object":
            assert fast.object(residuals, used) == slow.object(residuals, used)
        assert fast.outcomes_of_type(residuals, type) == slow.outcomes_of_type(residuals, type)


def test_what_an_interrupted_search_has_found_is_not_taken_for_final(monkeypatch):
    schema = {"properties": {key: {"items": {"$ref": "#"}} for key in "abc"}, "required": ["a"], "maxProperties": 3}
    formulas, root = SchemaCompiler(schema, {}).formulas, (atom(Ref("#")),)
    expected = Reachability(formulas.__getitem__).value(root)
    reach, n_interrupted = Reachability(formulas.__getitem__), 0
    for limit in range(20):
        with monkeypatch.context() as patch, suppress(UnsupportedSchemaError):
            patch.setattr("tct.reachability.MAX_STATES", limit)
            reach.value(root)
            break
        n_interrupted += 1
    assert n_interrupted > 2
    assert reach.value(root) == expected


def test_keys_that_depend_on_few_others_need_few_states():
    keys = [f"k{i}" for i in range(60)]
    pairs = {key: [then] for key, then in zip(keys, reversed(keys))}
    compile_json_schema({"required": keys, "properties": dict.fromkeys(keys, {"type": "string"})})
    compile_json_schema({"dependencies": pairs, "additionalProperties": False, "properties": dict.fromkeys(keys, {})})


@pytest.fixture
def seconds_pass(monkeypatch):
    """Let a second pass whenever the clock is read."""
    monkeypatch.setattr("tct.time_limit.monotonic", count().__next__)


@pytest.mark.parametrize(
    "schema",
    [
        {"anyOf": [{"required": [f"{i}", f"{j}"]} for i in range(60) for j in range(i) if i * j % 7 == 1]},
        {"allOf": [{"pattern": f"^(.{{{n}}})*$"} for n in (23, 25, 27)]},
        {"pattern": "((a{99}){99}){99}"},
        {"enum": [i * 1.7 for i in range(3000)]},
    ],
)
def test_a_schema_that_takes_too_long_is_refused(schema, seconds_pass):
    with pytest.raises(TimeLimitError, match="more than 3 seconds"):
        compile_json_schema(schema, time_limit=3)


def test_build_tokenizer_takes_a_time_limit(tmp_path, capsys, seconds_pass):
    (tmp_path / "schema.json").write_text('{"pattern": "((a{99}){99}){99}"}')
    arguments = ["--schema", tmp_path / "schema.json", "--corpus", tmp_path, "--output", tmp_path / "artifact.json"]
    with pytest.raises(SystemExit):
        build_tokenizer.main([*map(str, arguments), "--time-limit", "3"])
    assert "more than 3 seconds" in capsys.readouterr().err


def test_a_time_limit_ends_with_the_compilation(seconds_pass):
    compile_json_schema({"type": "string"}, time_limit=30)
    for _ in range(40):
        check_time()
