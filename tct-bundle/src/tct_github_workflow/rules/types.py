"""The types of expressions, as actionlint checks them.

A type says which properties and elements a value has. `ANY` fits everywhere. An object that is still being written may
`grow`: a property that it does not have yet is promised, and `Typing.promises` names the contexts that must keep it.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

from .expressions import Call, Compare, Context, Filter, Index, Literal, Logical, Node, Not, Property

Owner = tuple[str, ...]  # what must get a property: ("needs", job), ("outputs", job), ("inputs",) ...
Promise = tuple[Owner, str]  # of a property that does not exist yet; "*" is any property
PLACEHOLDER = re.compile(r"\{\{|\{(\d+)\}(\}*)")


@dataclass(frozen=True, eq=False)
class Type:
    """A type without parts: one of the five below."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, eq=False)
class Undecided(Type):
    """The type of a property that depends on what is still to come. Until then it is ANY."""

    name: str = field(default="any", init=False)
    owner: Owner = ()


ANY, STRING, NUMBER, BOOL, NULL = map(Type, ("any", "string", "number", "bool", "null"))


@dataclass(frozen=True, eq=False)
class Object(Type):
    """An object. Other properties than the known ones have the type `others`, or do not exist if that is None."""

    name: str = field(default="object", init=False)
    properties: Mapping[str, Type] = field(default_factory=dict)  # by name in lower case
    others: Type | None = None
    grows: Callable[[str], bool] | None = None  # may a property of this name still come?
    owner: Owner = ()  # of what is promised
    unknown: "Type | Callable[[str], Type]" = ANY  # the type of a property that may still come


@dataclass(frozen=True, eq=False)
class Array(Type):
    """An array, or what `.*` selects."""

    name: str = field(default="array", init=False)
    element: Type = ANY
    is_filter: bool = False


LOOSE = Object(others=ANY)
STRINGS = Object(others=STRING)


def merge(left: Type, right: Type) -> Type:
    """Return the type of a value that has one of two types."""
    scalars = (STRING, NUMBER, BOOL)
    if left is right:
        return left
    if left in scalars and right in scalars and STRING in (left, right):
        return STRING
    if isinstance(left, Object) and isinstance(right, Object):
        return _merge_objects(left, right)
    if isinstance(left, Array) and isinstance(right, Array):
        if ANY in (left.element, right.element):
            return left if left.element is ANY else right
        return Array(merge(left.element, right.element))
    return ANY


def _merge_objects(left: Object, right: Object) -> Object:
    if not left.properties and right.others is ANY:
        return right
    if not right.properties and left.others is ANY:
        return left
    others = left.others
    if others is None:
        others = right.others
    elif right.others is not None:
        others = merge(others, right.others)
    properties = dict(left.properties)
    for name, type in right.properties.items():
        if name in properties:
            properties[name] = merge(properties[name], type)
        else:
            properties[name] = type
            others = others and merge(others, type)
    return Object(properties, others)


def assignable(to: Type, type: Type) -> bool:
    """May a value of `type` be passed as a parameter of the type `to`?"""
    if to in (ANY, BOOL) or type is ANY:
        return True
    if to is STRING:
        return type in (STRING, NUMBER)
    if isinstance(to, Array):
        return isinstance(type, Array) and assignable(to.element, type.element)
    return to is type


def comparable(operator: str, left: Type, right: Type) -> bool:
    """May two values be compared? Objects, arrays and other values never equal each other."""
    if operator not in ("==", "!="):
        ordered = (ANY, NUMBER, STRING)
        return left in ordered and right in ordered
    if left in (ANY, NULL):
        return True
    if isinstance(left, Object):
        return isinstance(right, Object) or right in (NULL, ANY)
    if isinstance(left, Array):
        return right in (NULL, ANY) or isinstance(right, Array) and comparable("==", left.element, right.element)
    return not isinstance(right, (Object, Array))


def of_literal(value: Any) -> Type:
    """Return the type of a JSON value."""
    if isinstance(value, dict):
        return Object({key: of_literal(member) for key, member in value.items()})
    if isinstance(value, list):
        return Array(reduce(merge, map(of_literal, value)) if value else ANY)
    return {str: STRING, bool: BOOL, type(None): NULL}.get(type(value), NUMBER)


# ---------------------------------------------------------------------------------------------------------
# functions


MAX_ARGUMENTS = 255


@dataclass(frozen=True)
class Function:
    """A function: each signature is a tuple of parameters. If it repeats, so does the last parameter."""

    name: str
    returns: Type
    signatures: tuple[tuple[Type, ...], ...]
    repeats: bool = False

    @property
    def min_arguments(self) -> int:
        return min(map(len, self.signatures))

    @property
    def max_arguments(self) -> int:
        return MAX_ARGUMENTS if self.repeats else max(map(len, self.signatures))

    def accepts(self, arguments: list[Type]) -> str:
        """Return why the arguments do not fit, or an empty string."""
        counts = sorted(map(len, self.signatures))
        if not (len(arguments) in counts or self.repeats and counts[-1] <= len(arguments) <= self.max_arguments):
            count = f"{counts[0]}" if counts[0] == counts[-1] else f"{counts[0]} to {counts[-1]}"
            return f"{self.name}() takes {'at least ' * self.repeats}{count} arguments, not {len(arguments)}"
        if any(self._fits(signature, arguments) for signature in self.signatures):
            return ""
        return f"{self.name}() does not take ({', '.join(map(str, arguments))})"

    def _fits(self, signature: tuple[Type, ...], arguments: list[Type]) -> bool:
        if not self.repeats and len(signature) != len(arguments):
            return False
        parameters = signature + signature[-1:] * (len(arguments) - len(signature))
        return all(map(assignable, parameters, arguments))


FUNCTIONS = {
    function.name.lower(): function
    for function in [
        Function("contains", BOOL, ((STRING, STRING), (Array(ANY), ANY))),
        Function("startsWith", BOOL, ((STRING, STRING),)),
        Function("endsWith", BOOL, ((STRING, STRING),)),
        Function("format", STRING, ((STRING, ANY),), repeats=True),
        Function("join", STRING, ((Array(STRING), STRING), (Array(STRING),))),
        Function("toJSON", STRING, ((ANY,),)),
        Function("fromJSON", ANY, ((STRING,),)),
        Function("hashFiles", STRING, ((STRING,),), repeats=True),
        Function("success", BOOL, ((),)),
        Function("always", BOOL, ((),)),
        Function("cancelled", BOOL, ((),)),
        Function("failure", BOOL, ((),)),
    ]
}
STATUS_FUNCTIONS = frozenset(["success", "always", "cancelled", "failure"])
SPECIAL_FUNCTIONS = STATUS_FUNCTIONS | {"hashfiles"}  # not available everywhere


# ---------------------------------------------------------------------------------------------------------
# contexts whose type is the same in every workflow

GITHUB_STRINGS = """
    action action_path action_ref action_repository action_status actor actor_id api_url base_ref env event_name
    event_path graphql_url head_ref job path ref ref_name ref_type repository repository_id repository_owner
    repository_owner_id repository_visibility repositoryurl run_attempt run_id run_number secret_source server_url sha
    state step_summary token triggering_actor workflow workflow_ref workflow_sha workspace output
""".split()
GITHUB = {
    **dict.fromkeys(GITHUB_STRINGS, STRING),
    "artifact_cache_size_limit": NUMBER,
    "retention_days": NUMBER,
    "ref_protected": BOOL,
    "event": LOOSE,
}
SERVICE = Object({"id": STRING, "network": STRING, "ports": STRINGS})
STATIC_CONTEXTS = {
    "github": Object(GITHUB),
    "env": STRINGS,
    "vars": STRINGS,
    "secrets": STRINGS,
    "job": Object(
        {
            "container": Object({"id": STRING, "network": STRING}),
            "services": Object(others=SERVICE),
            "status": STRING,
        }
    ),
    "runner": Object(dict.fromkeys("name os arch temp tool_cache debug environment".split(), STRING)),
    "strategy": Object(
        {"fail-fast": BOOL, "job-index": NUMBER, "job-total": NUMBER, "max-parallel": NUMBER}, others=ANY
    ),
}
CONTEXTS = frozenset([*STATIC_CONTEXTS, "steps", "needs", "matrix", "inputs", "jobs"])


# ---------------------------------------------------------------------------------------------------------
# the types of expressions


class Fault(ValueError):
    """An expression cannot be evaluated. `rule` names the rule that it breaks."""

    def __init__(self, rule: str, message: str):
        super().__init__(message)
        self.rule = rule


class Typing:
    """The type of one expression in one place.

    `contexts` returns the type of a context by name. `promises` collects the properties that are used, but do not exist
    yet.
    """

    def __init__(self, contexts: Callable[[str], Type], available: frozenset[str], functions: frozenset[str]):
        self._contexts, self._available, self._functions = contexts, available, functions
        self.promises: set[Promise] = set()

    def type_of(self, node: Node) -> Type:
        """Return the type of an expression. Raises Fault."""
        match node:
            case Literal(value):
                return of_literal(value)
            case Context(name):
                return self._context(name)
            case Property(of, name):
                return self._property(self.type_of(of), name, of)
            case Filter(of):
                return self._filtered(self.type_of(of))
            case Index(of, index):
                return self._index(node, self.type_of(index), self.type_of(of))
            case Call():
                return self._call(node)
            case Not(of):
                self.type_of(of)
                return BOOL
            case Compare(operator, left, right):
                left_type, right_type = self.type_of(left), self.type_of(right)
                if not comparable(operator, left_type, right_type):
                    raise Fault("expression-type", f"{left_type} cannot be compared to {right_type} by {operator}")
                return BOOL
            case Logical(operator, left, right):
                return merge(self._narrowed(left, operator == "||"), self.type_of(right))
        raise AssertionError(node)

    def _narrowed(self, node: Node, is_true: bool) -> Type:
        """Return the type of an operand that is known to be true, or false."""
        if isinstance(node, Not):
            return self._narrowed(node.of, not is_true)
        if isinstance(node, Logical) and is_true == (node.operator == "&&"):
            self.type_of(node.left)
            return self.type_of(node.right)
        return self.type_of(node)

    def _context(self, name: str) -> Type:
        if name not in CONTEXTS:
            raise Fault("expression-syntax", f"there is no context {name!r}")
        if name not in self._available:
            few = f"only {', '.join(sorted(self._available))}" if self._available else "no contexts"
            raise Fault("context-availability", f"the context {name!r} is not available here: {few}")
        return self._contexts(name)

    def _property(self, type: Type, name: str, of: Node) -> Type:
        if type is ANY:
            return ANY
        if isinstance(type, Object):
            if isinstance(of, Context) and of.name == "vars":
                check_variable(name)
            return self._member(type, name)
        if isinstance(type, Array) and type.is_filter:
            if type.element is ANY:
                return type
            if isinstance(type.element, Object):
                return Array(self._member(type.element, name), is_filter=True)
        raise Fault("expression-type", f"{type} has no property {name!r}")

    def _member(self, type: Object, name: str) -> Type:
        if name in type.properties:
            found = type.properties[name]
            if isinstance(found, Undecided):
                self.promises.add((found.owner, name))
                return ANY
            return found
        if type.others is not None:
            return type.others
        if type.grows and name == name.lower() and type.grows(name):  # actionlint finds no ['Name']
            self.promises.add((type.owner, name))
            return type.unknown if isinstance(type.unknown, Type) else type.unknown(name)
        known = f": it has {', '.join(sorted(type.properties))}" if type.properties else ""
        raise Fault("undefined-property", f"there is no property {name!r}{known}")

    def _filtered(self, type: Type) -> Type:
        """Return the type of `.*` of a value."""
        if type is ANY:
            return Array(ANY, is_filter=True)
        if isinstance(type, Array):
            return Array(type.element, is_filter=True)
        if isinstance(type, Object):
            if type.others is ANY or isinstance(type.others, Object):
                return Array(type.others, is_filter=True)
            if type.others is None and any(isinstance(part, Object) for part in type.properties.values()):
                return Array(ANY, is_filter=True)
            if type.grows and type.grows("*"):
                self.promises.add((type.owner, "*"))
                return Array(ANY, is_filter=True)
        raise Fault("expression-type", f"`.*` needs an array, or an object of objects, not {type}")

    def _index(self, node: Index, index: Type, type: Type) -> Type:
        if type is ANY:
            return ANY
        if isinstance(type, Array):
            if index in (ANY, NUMBER):
                return type.element
            raise Fault("expression-type", f"the index of an array is a number, not {index}")
        if not isinstance(type, Object):
            raise Fault("expression-type", f"{type} has no index")
        if index is ANY:
            return ANY
        if index is not STRING:
            raise Fault("expression-type", f"the index of an object is a string, not {index}")
        if isinstance(node.index, Literal):
            return self._member(type, node.index.value)
        if type.owner == ("secrets",):  # whatever secrets come: all are texts
            return STRING
        return type.others or ANY

    def _call(self, node: Call) -> Type:
        function = FUNCTIONS.get(node.function)
        if function is None:
            raise Fault("expression-syntax", f"there is no function {node.function!r}")
        if reason := function.accepts(list(map(self.type_of, node.arguments))):
            raise Fault("function-arguments", reason)
        if node.function in SPECIAL_FUNCTIONS - self._functions:
            raise Fault("context-availability", f"{function.name}() is not available here")
        first = node.arguments[0].value if node.arguments and isinstance(node.arguments[0], Literal) else None
        if isinstance(first, str) and node.function == "format":
            check_format(first, len(node.arguments) - 1)
        if isinstance(first, str) and node.function == "fromjson":
            try:
                return of_literal(read_literal(first))
            except ValueError:
                raise Fault("function-arguments", f"fromJSON() needs JSON, not {first!r}") from None
        return function.returns


def check_variable(name: str) -> None:
    """Raise Fault if a configuration variable cannot have this name."""
    if name.startswith("github_") or not name.replace("_", "a").isalnum():
        raise Fault("undefined-property", f"a configuration variable cannot be named {name!r}")


def check_format(text: str, n_arguments: int) -> None:
    """Raise Fault unless each argument of format() has its placeholder, and each placeholder its argument."""
    numbers = placeholders(text)
    if numbers != set(range(n_arguments)):
        names = ", ".join(f"{{{number}}}" for number in sorted(numbers or ())) or "no placeholders"
        raise Fault("function-arguments", f"format() has {n_arguments} values, but {text!r} has {names}")


def placeholders(text: str) -> set[int] | None:
    """Return the numbers in braces of a format string, or None if its braces are not balanced.

    >>> placeholders("{0} {{1}} {2}}}")
    {0, 2}
    """
    found = [match for match in PLACEHOLDER.finditer(text) if match[1]]
    return {int(match[1]) for match in found} if all(len(match[2]) % 2 == 0 for match in found) else None


def read_literal(text: str) -> Any:
    """Return the value of a JSON text. Raises ValueError."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)
