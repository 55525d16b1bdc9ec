"""unevaluatedProperties and unevaluatedItems as formulas.

Both are about the members or items that no other keyword has evaluated: no keyword next to them, and none in the
sub-schemas that apply to the same value. Some sub-schemas, such as those of anyOf, evaluate something only if they
hold. So there are alternatives: if a formula holds, certain members have been evaluated. The keyword holds if one of
the alternatives does and all other members satisfy its schema. An alternative may overlook a sub-schema that holds,
because it then asks for more.
"""

from dataclasses import dataclass
from itertools import product

from tct.assertions import Present, TypeIs, items_of, members_of
from tct.errors import UnsupportedSchemaError
from tct.formula import FALSE, TRUE, Formula, all_of, any_of, atom, negation
from tct.references import Schema, escape_pointer

MAX_ALTERNATIVES = 64
REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")


@dataclass(frozen=True)
class Evaluated:
    """What has been evaluated: members by name or pattern; the first `n_items` items, and those that satisfy one of the
    formulas `contained`; or everything."""

    names: frozenset[str] = frozenset()
    patterns: frozenset[str] = frozenset()
    n_items: int = 0
    contained: frozenset[Formula] = frozenset()
    everything: bool = False

    def __or__(self, other: "Evaluated") -> "Evaluated":
        return Evaluated(
            self.names | other.names,
            self.patterns | other.patterns,
            max(self.n_items, other.n_items),
            self.contained | other.contained,
            self.everything or other.everything,
        )


Alternatives = dict[Evaluated, Formula]  # what has been evaluated if a formula holds
NOTHING: Alternatives = {Evaluated(): TRUE}


def unevaluated(compiler, schema: dict, pointer: str) -> Formula:
    """Compile unevaluatedProperties or unevaluatedItems. `compiler` is a SchemaCompiler (schema.py)."""
    parent, keyword = pointer.rsplit("/", 1)
    formula = compiler.compile(schema[keyword], pointer)
    others = {name: value for name, value in schema.items() if name != keyword}
    found = _Search(compiler, keyword, parent).alternatives(others, parent, ())
    return any_of(all_of([condition, _rest(evaluated, formula, keyword)]) for evaluated, condition in found.items())


def _rest(evaluated: Evaluated, formula: Formula, keyword: str) -> Formula:
    """Return the formula of a value whose members or items satisfy `formula` unless they have been evaluated."""
    if evaluated.everything:
        return TRUE
    if keyword == "unevaluatedItems":
        return items_of([TRUE] * evaluated.n_items, any_of([formula, *evaluated.contained]))
    names, patterns = sorted(evaluated.names), sorted(evaluated.patterns)
    return members_of({name: TRUE for name in names}, [(regex, TRUE) for regex in patterns], formula)


class _Search:
    """Find what the sub-schemas of a schema evaluate, for one of the two keywords."""

    def __init__(self, compiler, keyword: str, pointer: str):
        self.compiler, self.keyword, self.pointer = compiler, keyword, pointer

    def alternatives(self, schema: Schema, pointer: str, within: tuple[str, ...]) -> Alternatives:
        """Return what a schema evaluates if it holds. `within` are the references that led to it."""
        if not isinstance(schema, dict):
            return NOTHING
        compiler, found = self.compiler, {self.evaluated(schema, pointer): TRUE}

        def of(at: str, inner: Schema) -> Alternatives:
            return self.alternatives(inner, f"{pointer}/{at}", within)

        def formula(at: str, inner: Schema) -> Formula:
            return compiler.compile(inner, f"{pointer}/{at}")

        for keyword, value in schema.items():
            if keyword in REFERENCES and keyword not in compiler.unknown():
                found = self.both(found, self.referred(compiler.target(schema, f"{pointer}/{keyword}"), within))
            elif keyword in ("allOf", "anyOf", "oneOf"):
                places = {f"{keyword}/{i}": inner for i, inner in enumerate(value)}
                if keyword == "allOf":
                    parts = [of(at, inner) for at, inner in places.items()]
                elif keyword == "anyOf":
                    parts = [_either(NOTHING, _if(formula(*place), of(*place))) for place in places.items()]
                else:
                    parts = [_either(*(_if(formula(*place), of(*place)) for place in places.items()))]
                found = self.both(found, *parts)
            elif keyword == "if":
                then = self.both(of("if", value), of("then", schema.get("then", True)))
                condition, otherwise = formula("if", value), of("else", schema.get("else", True))
                found = self.both(found, _either(_if(condition, then), _if(negation(condition), otherwise)))
            elif keyword == "dependentSchemas":
                for name, inner in value.items():
                    has_key = all_of([atom(TypeIs("object")), atom(Present(name))])
                    then = of(f"{keyword}/{escape_pointer(name)}", inner)
                    found = self.both(found, _either(NOTHING, _if(has_key, then)))
        return found

    def referred(self, target: str, within: tuple[str, ...]) -> Alternatives:
        if target in within:
            raise UnsupportedSchemaError("$ref", target, "refers to itself and to nothing else")
        with self.compiler.using(self.compiler.documents.scope(target).dialect):
            return self.alternatives(self.compiler.documents.find(target), target, (*within, target))

    def both(self, *parts: Alternatives) -> Alternatives:
        """Return what all parts evaluate together."""
        found: Alternatives = NOTHING
        for part in parts:
            combined: Alternatives = {}
            for (left, if_left), (right, if_right) in product(found.items(), part.items()):
                combined = _either(combined, {left | right: all_of([if_left, if_right])})
            found = combined
            if len(found) > MAX_ALTERNATIVES:
                reason = f"more than {MAX_ALTERNATIVES} combinations of what other keywords evaluate"
                raise UnsupportedSchemaError(self.keyword, self.pointer, reason)
        return found

    def evaluated(self, schema: dict, pointer: str) -> Evaluated:
        """Return what the keywords of a schema evaluate, without its sub-schemas for the same value."""
        everything = self.keyword in schema
        if self.keyword == "unevaluatedProperties":
            names, patterns = (frozenset(schema.get(k, ())) for k in ("properties", "patternProperties"))
            return Evaluated(names, patterns, everything=everything or "additionalProperties" in schema)
        prefix, rest = self.compiler.dialect.items_keywords(schema)
        contained = [self.compiler.compile(schema["contains"], f"{pointer}/contains")] if "contains" in schema else []
        return Evaluated(
            n_items=len(schema[prefix]) if prefix else 0,
            contained=frozenset(contained),
            everything=everything or rest in schema,
        )


def _if(condition: Formula, found: Alternatives) -> Alternatives:
    return {evaluated: all_of([condition, formula]) for evaluated, formula in found.items()}


def _either(*several: Alternatives) -> Alternatives:
    found: Alternatives = {}
    for alternatives in several:
        for evaluated, formula in alternatives.items():
            found[evaluated] = any_of([found.get(evaluated, FALSE), formula])
    return found
