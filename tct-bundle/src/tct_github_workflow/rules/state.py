"""A workflow while it is written, symbol by symbol: which symbols may follow under the rules?

A state is immutable. It has the containers that are open, the text that is being written, and the texts whose
references are still owed. A symbol is refused if no ending of the workflow could break no rule any more.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from typing import Any, NamedTuple

from tct.state import State
from tct.symbols import END_NUMBER, END_STRING, text_symbols

from .checks import (
    SCALAR_CHECKS,
    Spot,
    check_container,
    check_key,
    check_kind,
    check_scalar,
    deprecated_command,
    is_script,
)
from .endings import HOPELESS, is_refused_like, open_expression, text_endings
from .formats import VARIABLE
from .places import ROOT, Place
from .scope import PENDING, OpenArray, OpenObject, Path, Workflow
from .templates import CLOSE, OPEN, check_text
from .types import BOOL, NUMBER, STRING, Fault, Promise, Type

# Rests of keys, and of numbers, that are tried. One of them makes any start whole that can become whole.
KEY_ENDINGS = ["", "a", "b", "_a", "aa", "ab", "a1", "b2", "c3", "d4", "e5", "f6", "g7", "h8", "i9", "x"]
NUMBER_ENDINGS = ["", "1", "2", "3", "5", "7", "0", ".5", "11", "12", "13"]


class Frame(NamedTuple):
    """An open container: its place, its complete members, and the key of the member that is being written."""

    place: Place
    members: dict | list
    key: str | int | None


class Owing(NamedTuple):
    """A text that refers to something that is still to come. `is_key` if the text is a key of its place."""

    path: Path
    text: str
    place: Place
    is_key: bool = False


@dataclass(frozen=True, eq=False)
class RulesState:
    """What has been written of a workflow."""

    frames: tuple[Frame, ...] = ()
    kind: str = ""  # what is being written: "string", "key", "number", or nothing
    text: str = ""  # of it
    rest: bytes = b""  # the first bytes of a character that is cut
    checked: int = 0  # expressions before this index of the text have been checked
    owing: tuple[Owing, ...] = ()
    promises: frozenset[Promise] = frozenset()  # what the texts that are owing refer to
    assumed: Mapping[str, Type] = field(default_factory=dict)  # types of inputs that are used, but not declared yet
    root: Any = PENDING  # the whole workflow, once it is complete
    root_place: Place = ROOT

    def _with(self, **changes: Any) -> "RulesState":
        """Return a state with other fields. It shares what has been found out about the workflow, if only text changes.

        This is `dataclasses.replace`, but faster: it runs several times for each token.
        """
        state = object.__new__(RulesState)
        fields = state.__dict__
        fields.update(self.__dict__)
        if not changes.keys() <= OF_TEXT:
            for name in ("path", "workflow", "_promised"):
                fields.pop(name, None)
        fields.update(changes)
        return state

    # -- the workflow so far

    @cached_property
    def path(self) -> Path:
        """The path of the value that is being written, or comes next."""
        return tuple(frame.key for frame in self.frames if frame.key is not None)

    @cached_property
    def workflow(self) -> Workflow:
        """The workflow so far, with what it owes."""
        value: Any = self.root
        for frame in reversed(self.frames):
            inner = value
            value = OpenObject(frame.members) if isinstance(frame.members, dict) else OpenArray(frame.members)
            if frame.key is None:
                continue
            if isinstance(value, dict):
                value[frame.key] = inner
            else:
                value.append(inner)
        owed_inputs = frozenset(name for owner, name in self.promises if owner == ("inputs", "workflow_dispatch"))
        return Workflow(value, self._promised, self.assumed, owed_inputs - {"*"})

    @cached_property
    def _promised(self) -> dict[str, frozenset[str]]:
        """The jobs that each job must need."""
        needs: dict[str, frozenset[str]] = {}
        for owner, name in self.promises:
            if owner[0] == "needs" and name != "*":
                needs[owner[1]] = needs.get(owner[1], frozenset()) | {name}
        return needs

    @property
    def place(self) -> Place | None:
        """The place of the value that is being written, or comes next."""
        if not self.frames:
            return self.root_place
        frame = self.frames[-1]
        return frame.place.child(frame.key if frame.key is not None else 0)

    def spot(self) -> Spot:
        return Spot(self.workflow, self.path, self.place)

    # -- events. Each returns the next state, or raises Fault.

    def begin(self, kind: str) -> "RulesState":
        """Begin a text, number, object or array."""
        state = self.begin_literal()
        check_kind(state.place, kind)
        if kind in ("string", "number"):
            return state._with(kind=kind, text="", rest=b"", checked=0)
        container = OpenObject() if kind == "object" else OpenArray()
        return state._with(frames=(*state.frames, Frame(state.place, container, None)))._validated()

    def begin_literal(self) -> "RulesState":
        """Begin a value, the next item if it is in an array."""
        state = self
        if self.frames and isinstance(self.frames[-1].members, list):
            state = self._with_frame(self.frames[-1]._replace(key=len(self.frames[-1].members)))
        if state.place is None:
            raise Fault("unknown-key", "nothing may stand here")
        return state

    def begin_key(self) -> "RulesState":
        """Begin a key that is spelled out."""
        return self._with(kind="key", text="", rest=b"")

    def refuse(self) -> None:
        """Raise Fault because nothing can follow."""
        raise Fault("no-ending", f"nothing that starts with {self.text!r} may stand here")

    def _with_frame(self, frame: Frame) -> "RulesState":
        return self._with(frames=(*self.frames[:-1], frame))

    def end_key(self, key: str) -> "RulesState":
        """Take a complete key."""
        frame = self.frames[-1]
        state = self._with(kind="", text="", rest=b"")
        spot = Spot(state.workflow, state.path, frame.place)
        promises = check_key(spot, key, frame.members)
        if frame.place.child(key) is None:
            raise Fault("unknown-key", f"{key!r} is not known here")
        state = state._with_frame(frame._replace(key=key))
        if promises:
            state = state._owe(Owing(spot.path, key, frame.place, is_key=True))
        return state._validated()

    def end_scalar(self, value: Any) -> "RulesState":
        """Take a complete text, number, boolean or null."""
        spot = self.spot()
        state = self
        for assumed in self._assumptions(value):
            state = self._with(assumed=assumed) if assumed is not self.assumed else self
            try:
                promises = check_scalar(state.spot(), value)
                break
            except Fault as fault:
                failed = fault
        else:
            raise failed
        owing = Owing(spot.path, value, spot.place) if promises else None
        state = state._with_value(value)._with(kind="", text="", rest=b"", checked=0)
        return (state._owe(owing) if owing else state)._validated()

    def _assumptions(self, text: Any) -> Iterator[Mapping[str, Type]]:
        """Yield the types that inputs may have which are used before they are declared."""
        yield self.assumed
        if isinstance(text, str) and "inputs" in text.lower() and self.workflow.events_may_come:
            names = {name for owner, name in self._promises_of(text) if owner == ("inputs",)}
            names -= self.assumed.keys()
            for types in product((STRING, NUMBER, BOOL), repeat=min(len(names), 3)):
                yield {**self.assumed, **dict(zip(sorted(names), types))}

    def _promises_of(self, text: str) -> set[Promise]:
        """Return what a text promises, whatever types its place requires."""
        template = replace(self.place.template, gives="any")
        try:
            return check_text(text, template, self.spot().contexts)
        except Fault:
            return set()

    def _with_value(self, value: Any) -> "RulesState":
        """Put a complete value where it belongs."""
        if not self.frames:
            return self._with(root=value)
        frame = self.frames[-1]
        if isinstance(frame.members, dict):
            members: Any = OpenObject(frame.members)
            members[frame.key] = value
        else:
            members = OpenArray([*frame.members, value])
        return self._with_frame(Frame(frame.place, members, None))

    def end_container(self) -> "RulesState":
        """Close the innermost object or array."""
        frame = self.frames[-1]
        outer = self._with(frames=self.frames[:-1])
        value = dict(frame.members) if isinstance(frame.members, dict) else list(frame.members)
        state = outer._with_value(value)
        check_container(Spot(state.workflow, outer.path, frame.place), value)
        return state._validated()

    # -- what is owed

    def _owe(self, owing: Owing) -> "RulesState":
        return self._with(owing=(*self.owing, owing))._settled()

    def _settled(self) -> "RulesState":
        """Check all texts that owe something again, and forget those that no longer do."""
        owing, promises = [], set()
        for text in self.owing:
            if promised := self._check_owing(text):
                owing.append(text)
                promises |= promised
        state = self._with(owing=tuple(owing), promises=frozenset(promises))
        if state._promised != self._promised:
            for text in owing:
                state._check_owing(text)
        return state

    def _check_owing(self, owing: Owing) -> set[Promise]:
        spot = Spot(self.workflow, owing.path, owing.place)
        if owing.is_key:
            return check_key(spot, owing.text, ())
        return check_scalar(spot, owing.text)

    def _validated(self) -> "RulesState":
        """Check the open containers, and, if their references may have changed, the texts that owe something."""
        state = self._settled() if self.owing and self._may_settle() else self
        workflow, path = state.workflow, state.path
        value = workflow.root
        for depth, frame in enumerate(state.frames):
            if depth:
                value = value[path[depth - 1]]
            check_container(Spot(workflow, path[:depth], frame.place), value)
        return state

    def _may_settle(self) -> bool:
        """Does what has just been written change what an expression can refer to?"""
        if len(self.frames) < 3:
            return True
        if self.frames[0].key == "on":
            return True
        part = self.frames[2].key
        return part != "steps" and (part is None or part in SETTLING)

    # -- texts

    def add_text(self, piece: bytes, schema: State) -> "RulesState":
        """Add bytes to what is being written. `schema` is the state of the schema after them."""
        data = self.rest + piece
        text = data.decode("utf-8", "ignore")
        state = self._with(text=self.text + text, rest=data[len(text.encode()) :])
        if self.kind == "string" and state._is_free():
            return state._with_free_text() if not state.rest else state._with_cut_character()
        if self.kind == "key" and not state.rest and state._is_free_key():
            return state
        if state.ending(schema) is None:
            state.refuse()
        return state

    def with_text(self, piece: bytes) -> "RulesState":
        """Add bytes to a text whose end comes next."""
        return self._with(text=self.text + (self.rest + piece).decode(), rest=b"")

    def _is_free(self) -> bool:
        """May the text be anything, if its expressions break no rule?"""
        place = self.place
        checks = SCALAR_CHECKS.get(place.name, ())
        return (
            place.template.gives in ("text", "any")
            and not (place.format or place.is_value or self.frames[0].key == "on")
            and (not checks or checks == [deprecated_command])
        )

    def _is_free_key(self) -> bool:
        """Can the key certainly be completed? It can in an object with any texts under any names."""
        place = self.frames[-1].place
        is_map_of_texts = place.others is not None and place.others.template is not None and not place.others.is_value
        fits = place.key is None or place.key is VARIABLE and not VARIABLE.fault(self.text)
        return is_map_of_texts and not place.members and fits and OPEN[0] not in self.text

    def _with_cut_character(self) -> "RulesState":
        """Check that a text may go on with one of the characters that start as its last bytes do."""
        for rest in rests_of_character(self.rest):
            try:
                whole = self._with(text=self.text + (self.rest + rest).decode(), rest=b"")._with_free_text()
            except Fault:
                continue
            return self._with(checked=min(whole.checked, len(self.text)))
        self.refuse()

    def _with_free_text(self) -> "RulesState":
        """Check the expressions that are new in a text, and that the last one can be completed."""
        start = open_expression(self.text, self.checked)
        end = len(self.text) if start is None else start
        if self.text.find(OPEN, self.checked, end) >= 0:
            self._check_part(self.text[self.checked : end])
        closed = self.text.rfind(CLOSE, self.checked, end)
        checked = closed + len(CLOSE) if closed >= 0 else self.checked
        state = self._with(checked=checked if start is None else start)
        if start is not None and state.free_ending() is None:
            raise Fault("no-ending", f"no expression starts with {self.text[start:]!r} here")
        if "::" in self.text and SCALAR_CHECKS.get(self.place.name):
            deprecated_command(None, self.text)
        return state

    def _check_part(self, text: str) -> None:
        spot = self.spot()
        check_text(text, spot.place.template, spot.contexts, is_script=is_script(spot))

    def free_ending(self) -> str | None:
        """Return a rest of a free text, with which it breaks no rule, or None."""
        start = open_expression(self.text, self.checked)
        tail = self.text[len(self.text) if start is None else start :]

        def check(ending: str) -> None:
            self._check_part(tail + ending if start is not None else self.text[self.checked :] + ending)
            if not (self.text + ending or self.place.template.may_be_empty):
                raise Fault("empty-value", "the text is empty")

        return first_ending(text_endings(tail or self.text, self.place.template, self.spot().contexts), check)

    def refused_like(self, byte: int) -> list[int]:
        """Return the next bytes of a text that are refused for the same reason as one."""
        source = self.text
        if self.kind != "string" or self.place.template.gives != "condition" or OPEN in source:
            start = open_expression(source, self.checked)
            if start is None or self.rest:
                return [byte]
            source = source[start + len(OPEN) :]
        elif OPEN.startswith(source):
            return [byte]
        is_alike = is_refused_like(source, chr(byte))
        return [other for other in range(256) if is_alike(chr(other))]

    def endings(self) -> Iterator[Iterable[str]]:
        """Yield groups of proposals for the rest of what is being written (see endings.py)."""
        if self.kind == "key":
            yield from self._key_endings()
        elif self.kind == "number":
            yield NUMBER_ENDINGS
            yield self._known_rests()
        else:
            yield from self._text_endings()

    def _text_endings(self) -> Iterator[Iterable[str]]:
        place = self.place
        is_template = place.template.contexts and OPEN in self.text
        yield self._known_rests()
        if place.format and not is_template and place.format.start.match(self.text):
            yield place.format.endings(self.text)
        if not place.format or place.template.contexts:
            yield from text_endings(self.text, place.template, self.spot().contexts)
        if not (place.format or is_template or place.template.gives == "condition"):
            yield ("b", "aa", "ab", "a1", "1", "true", "0")

    def _key_endings(self) -> Iterator[Iterable[str]]:
        place = self.frames[-1].place
        yield [key[len(self.text) :] for key in place.members or () if key.startswith(self.text)]
        if place.others and (place.key is None or place.key.start.match(self.text)):
            if place.key and place.key.words:
                yield place.key.endings(self.text)
            elif OPEN not in self.text:
                yield KEY_ENDINGS
            if place.key is VARIABLE or OPEN[:1] in self.text and place.key_template:
                path = self.path
                yield from text_endings(self.text, place.key_template, lambda name: self.workflow.context(name, path))

    def _known_rests(self) -> list[str]:
        """Return rests of the texts that neighbours of the place suggest."""
        return [text[len(self.text) :] for text in self._known_texts() if text.startswith(self.text)]

    def _known_texts(self) -> Iterator[str]:
        """Yield texts that neighbours of the place suggest."""
        name = self.place.name
        if name in ("jobs.*.needs", "jobs.*.needs.*"):
            yield from self.workflow.jobs
            yield from sorted(self._promised.get(self.path[1], ()))
            yield from ("a", "b", "_a")
        elif name == "on.workflow_dispatch.inputs.*.default":
            yield from map(str, self.frames[-1].members.get("options", ()))
        elif name == "jobs.*.runs-on":
            yield from ("ubuntu-latest", "self-hosted")

    def ending(self, schema: State) -> bytes | None:
        """Return a rest of what is being written, with which it breaks no rule, or None.

        `schema` is the state of the schema, which must accept the rest, too.
        """
        for rest in rests_of_character(self.rest):
            state = self._with(text=self.text + (self.rest + rest).decode(), rest=b"")

            def check(ending: str) -> None:
                if not _accepts(schema, rest + ending.encode(), self.kind):
                    raise Fault("schema", "not allowed by the schema")
                self._end(state.text + ending)

            if (ending := first_ending(state.endings(), check)) is not None:
                return rest + ending.encode()
        return None

    def any_ending(self, schema: State) -> bytes | None:
        """Return a rest of what is being written, the cheap way if it is a free text."""
        if self.kind == "string" and not self.rest and self._is_free():
            ending = self.free_ending()
            if ending is not None and _accepts(schema, ending.encode(), self.kind):
                return ending.encode()
        return self.ending(schema)

    def _end(self, whole: str) -> "RulesState":
        if self.kind == "key":
            return self.end_key(whole)
        return self.end_scalar(number_of(whole) if self.kind == "number" else whole)


OF_TEXT = frozenset(["kind", "text", "rest", "checked"])
SETTLING = frozenset(["needs", "strategy", "outputs", "uses"])


def first_ending(groups: Iterable[Iterable[str]], check: Callable[[str], Any]) -> str | None:
    """Return the first ending that `check` does not refuse by a ValueError, such as Fault."""
    for endings in groups:
        for ending in endings:
            try:
                check(ending)
                return ending
            except ValueError as error:
                if getattr(error, "rule", "") in HOPELESS:
                    break
    return None


def rests_of_character(start: bytes) -> Iterable[bytes]:
    """Return bytes that complete a character of UTF-8 which starts so; nothing if it is empty.

    These are the rests of the first and of the last such character, and of a blank: no rule takes only others.
    """
    if not start:
        return [b""]
    for n in 1, 2, 3:
        characters = [start + bytes(rest) for rest in product(CONTINUATION, repeat=n)]
        if characters := [character for character in characters if _is_utf8(character)]:
            blank = next((character for character in characters if character.decode().isspace()), characters[0])
            return [character[len(start) :] for character in dict.fromkeys([blank, characters[0], characters[-1]])]
    return []


CONTINUATION = (0x80, 0x90, 0x9F, 0xA0, 0xBF)


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def number_of(text: str) -> int | float:
    return float(text) if any(char in text for char in ".eE") else int(text)


def _accepts(schema: State, ending: bytes, kind: str) -> bool:
    """Does the schema accept the rest of a text and its end?"""
    for symbol in (*text_symbols(ending), END_NUMBER if kind == "number" else END_STRING):
        schema = schema.step(symbol)
        if schema is None:
            return False
    return True
