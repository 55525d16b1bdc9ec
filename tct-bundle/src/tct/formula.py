"""Boolean formulas over assertions, interned: equal formulas are the same object.

A JSON Schema is a boolean formula over assertions about a value. Reading the value decides assertions one by one.
`substitute` replaces decided assertions in a formula and returns its residual: what is left to be decided.
"""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable

CONSTANT, ATOM, NOT, ALL, ANY, ONE = "constant", "atom", "not", "all", "any", "one"


class Formula:
    """A node. `parts` holds formulas; the assertion if it is an atom; the truth value if it is a constant."""

    __slots__ = ("atoms", "kind", "number", "parts")
    _interned: dict[tuple, "Formula"] = {}

    def __repr__(self) -> str:
        return f"{self.kind}({', '.join(map(repr, self.parts))})"


def _intern(kind: str, parts: tuple) -> Formula:
    key = (kind, tuple(part.number for part in parts) if kind not in (CONSTANT, ATOM) else parts)
    found = Formula._interned.get(key)
    if found is None:
        found = Formula()
        found.kind, found.parts, found.number = kind, parts, len(Formula._interned)
        found.atoms = frozenset(parts) if kind == ATOM else frozenset()
        if kind in (NOT, ALL, ANY, ONE):
            found.atoms = frozenset().union(*(part.atoms for part in parts))
        Formula._interned[key] = found
    return found


TRUE = _intern(CONSTANT, (True,))
FALSE = _intern(CONSTANT, (False,))


def constant(truth: bool) -> Formula:
    return TRUE if truth else FALSE


def atom(assertion: Hashable) -> Formula:
    return _intern(ATOM, (assertion,))


def negation(formula: Formula) -> Formula:
    if formula.kind == CONSTANT:
        return constant(not formula.parts[0])
    return formula.parts[0] if formula.kind == NOT else _intern(NOT, (formula,))


def all_of(formulas: Iterable[Formula]) -> Formula:
    return _nary(ALL, formulas, neutral=TRUE, absorbing=FALSE)


def any_of(formulas: Iterable[Formula]) -> Formula:
    return _nary(ANY, formulas, neutral=FALSE, absorbing=TRUE)


def one_of(formulas: Iterable[Formula]) -> Formula:
    """Return a formula that is true if exactly one of `formulas` is.

    >>> one_of([atom("a"), atom("a"), atom("b")]) is all_of([negation(atom("a")), atom("b")])
    True
    """
    counts = Counter(f for f in formulas if f is not FALSE)
    if counts[TRUE]:
        certain = counts.pop(TRUE)
        return FALSE if certain > 1 else all_of(negation(f) for f in counts)
    repeated = [f for f, n in counts.items() if n > 1]  # it is true twice or not at all, so it must be false
    single = sorted((f for f, n in counts.items() if n == 1), key=lambda f: f.number)
    exactly = any_of(single) if len(single) < 2 else _intern(ONE, tuple(single))
    return all_of([exactly, *(negation(f) for f in repeated)])


def _nary(kind: str, formulas: Iterable[Formula], neutral: Formula, absorbing: Formula) -> Formula:
    parts: set[Formula] = set()
    for formula in formulas:
        if formula is absorbing:
            return absorbing
        if formula.kind == kind:
            parts.update(formula.parts)
        elif formula is not neutral:
            parts.add(formula)
    if any(negation(part) in parts for part in parts):
        return absorbing
    if len(parts) < 2:
        return parts.pop() if parts else neutral
    return _intern(kind, tuple(sorted(parts, key=lambda f: f.number)))


_COMBINE = {ALL: all_of, ANY: any_of, ONE: one_of}


def substitute(formula: Formula, meaning: Callable[[Hashable], Formula]) -> Formula:
    """Replace each atom by meaning(assertion), and simplify. What cannot matter any more is not looked up."""
    if formula.kind == CONSTANT:
        return formula
    if formula.kind == ATOM:
        return meaning(formula.parts[0])
    if formula.kind == NOT:
        return negation(substitute(formula.parts[0], meaning))
    return _COMBINE[formula.kind](substitute(part, meaning) for part in formula.parts)


def replace(formula: Formula, changes: dict[Hashable, Formula]) -> Formula:
    """Replace each atom whose assertion is in `changes`, and simplify."""
    if formula.atoms.isdisjoint(changes):
        return formula
    if formula.kind == ATOM:
        return changes[formula.parts[0]]
    if formula.kind == NOT:
        return negation(replace(formula.parts[0], changes))
    return _COMBINE[formula.kind](replace(part, changes) for part in formula.parts)


def truth(formula: Formula, meaning: Callable[[Hashable], bool]) -> bool:
    """Return the truth value of a formula, given that of each assertion."""
    if formula.kind == CONSTANT:
        return formula.parts[0]
    if formula.kind == ATOM:
        return bool(meaning(formula.parts[0]))
    truths = (truth(part, meaning) for part in formula.parts)
    if formula.kind == ONE:
        return sum(truths) == 1
    return not next(truths) if formula.kind == NOT else (all if formula.kind == ALL else any)(truths)
