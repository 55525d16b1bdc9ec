"""Complete a workflow in a short way, so that it breaks no rule and pays what it owes."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

from tct.json_text import compact
from tct.state import DONE, ArrayFrame, ObjectFrame, State
from tct.symbols import (
    ARRAY,
    END_ARRAY,
    END_NUMBER,
    END_OBJECT,
    END_STRING,
    FALSE,
    NULL,
    NUMBER,
    OBJECT,
    TRUE,
    SymbolTable,
    literal,
    text_bytes,
    text_symbols,
)

from .checks import excluded_in_vain
from .endings import ANYTHING
from .following import write_symbol, write_text
from .places import Place
from .scope import OpenObject, members
from .state import Frame, RulesState
from .types import BOOL, Fault
from .types import NUMBER as A_NUMBER

STEP = {"run": "true"}
JOB = {"runs-on": "ubuntu-latest", "steps": [STEP]}
MOST_STEPS = 2000  # values and ends that complete a workflow: a bug shows as an error, not as endless work
ANY_VALUE = f"${{{{ {ANYTHING} }}}}"
SCALARS = ["a", 1, True, False, None, ANY_VALUE, "b", "1", "aa", 2, 3, 5]


def closing_symbols(schema: State, rules: RulesState, table: SymbolTable) -> list[int]:
    """Return symbols that complete a workflow. Raises RuntimeError if there are none, which would be a bug."""
    closer = Closer(schema, rules, table)
    closer.close()
    return closer.written


class Closer:
    """Write the rest of a workflow. `written` are its symbols."""

    def __init__(self, schema: State, rules: RulesState, table: SymbolTable):
        self.schema, self.rules, self.table = schema, rules, table
        self.written: list[int] = []

    def close(self) -> None:
        for _ in range(MOST_STEPS):
            if self.schema is DONE:
                return
            if not self._any(self._steps()):
                break
        where = ".".join(map(str, self.rules.path))
        raise RuntimeError(f"a workflow cannot be completed at {where or 'its start'!r}")

    def _any(self, alternatives: Iterable) -> bool:
        """Take the first alternative that breaks no rule."""
        for write, *arguments in alternatives:
            state = self.schema, self.rules, len(self.written)
            try:
                write(*arguments)
                return True
            except Fault:
                self.schema, self.rules, n_written = state
                del self.written[n_written:]
        return False

    def _steps(self) -> Iterator[tuple]:
        """Yield what can come next, the best first."""
        if self.rules.kind:
            yield (self._end_text,)
        elif not self.rules.frames or self.rules.frames[-1].key is not None:
            yield from ((self._value, value) for value in self._values(self.rules.place))
        else:
            frame = self.rules.frames[-1]
            yield self._symbols, [END_OBJECT if isinstance(frame.members, dict) else END_ARRAY]
            if isinstance(frame.members, dict):
                yield from ((self._member, key, value) for key, value in self._additions(frame))
            else:
                yield from ((self._value, value, True) for value in self._values(frame.place.item))

    # -- symbols

    def _symbols(self, symbols: list[int]) -> None:
        """Write symbols. Raises Fault if one is not allowed."""
        at = 0
        while at < len(symbols):
            end = at
            while end < len(symbols) and symbols[end] < END_STRING:
                end += 1
            before = self.schema
            if end > at:
                piece = text_bytes(symbols[at:end])
                after = before.run(piece)
                ends = end < len(symbols) and symbols[end] in (END_STRING, END_NUMBER)
                if after is None:
                    raise Fault("schema", "not allowed by the schema")
                self.rules = write_text(self.rules, before, piece, after, ends)
            else:
                end = at + 1
                after = before.step(symbols[at])
                if after is None:
                    raise Fault("schema", "not allowed by the schema")
                self.rules = write_symbol(self.rules, before, symbols[at], after, self.table)
            self.schema, at = after, end
        self.written += symbols

    def _end_text(self) -> None:
        ending = self.rules.any_ending(self.schema)
        if ending is None:
            self.rules.refuse()
        end = END_NUMBER if self.rules.kind == "number" else END_STRING
        self._symbols([*text_symbols(ending), end])

    def _member(self, key: str, value: Any) -> None:
        spelled = [*text_symbols(key), END_STRING]
        named = [self.table.key[key]] if key in self.table.key else spelled
        if not self._any([(self._symbols, named), (self._symbols, spelled)]):
            raise Fault("schema", "the key is not allowed")
        self._value(value)

    def _value(self, value: Any, is_item: bool = False) -> None:
        frame = self.schema.frame
        if is_item:
            item = frame.enter_item(self.schema.outer)
            if item is None:
                raise Fault("schema", "no item is allowed")
            frame = item.frame
        if not isinstance(value, (dict, list)):
            if not self._any((self._symbols, symbols) for symbols in self._scalar(value)):
                raise Fault("schema", "the value is not allowed")
            return
        is_object = isinstance(value, dict)
        if not isinstance(frame, ObjectFrame if is_object else ArrayFrame):
            self._symbols([OBJECT if is_object else ARRAY])
        for key, member in value.items() if is_object else ():
            self._member(key, member)
        for item in [] if is_object else value:
            self._value(item, is_item=True)
        self._symbols([END_OBJECT if is_object else END_ARRAY])

    def _scalar(self, value: Any) -> Iterator[list[int]]:
        """Yield the ways to write a scalar."""
        if (text := literal(value)) in self.table.value:
            yield [self.table.value[text]]
        if value is None or isinstance(value, bool):
            yield [{None: NULL, True: TRUE, False: FALSE}[value]]
        elif isinstance(value, str):
            yield [*text_symbols(value), END_STRING]
        else:
            digits = [*text_symbols(compact(value)), END_NUMBER]
            yield from ([NUMBER, *digits], digits)

    # -- what may come

    def _owed(self, *owner: str) -> list[str]:
        """Return the names that something still has to get."""
        return sorted(name for owed, name in self.rules.promises if owed == owner)

    def _values(self, place: Place) -> Iterator[Any]:
        """Yield values that may stand in a place, the best first."""
        find = VALUES.get(place.name)
        if find:
            yield from find(self)
        yield shortest(place)
        if place.takes("object"):
            yield shortest_object(place)
        if place.takes("array") and not place.is_value:
            yield [shortest(place.item)]
        yield from SCALARS
        yield from ({}, [])

    def _additions(self, frame: Frame) -> Iterator[tuple[str, Any]]:
        """Yield members that may be added to an object, the best first."""
        find = ADDITIONS.get(frame.place.name)
        if find:
            yield from find(self, frame.members)
        place = frame.place
        for key in place.required:
            if key not in frame.members:
                yield from ((key, value) for value in self._values(place.members[key]))
        if place.others:
            for key in place.key and place.key.words or ("a", "b", "c", "_a", "d"):
                yield from ((key, value) for value in self._values(place.others))
        for key, child in (place.members or {}).items():
            yield key, shortest(child)

    # -- jobs

    def _job_of(self, name: str) -> dict[str, Any]:
        """Return a job with the outputs that others use."""
        outputs = {output: "" for output in self._owed("outputs", name.lower())}
        return {**({"outputs": outputs} if outputs else {}), **JOB}

    def _missing_jobs(self) -> Iterator[tuple[str, dict[str, Any]]]:
        workflow = self.rules.workflow
        needed = [need for job in workflow.jobs for need in workflow.needs_of(job)]
        promised = [name for names in workflow.promised.values() for name in sorted(names)]
        for name in [*needed, *promised, *(name for name in self._owed("jobs") if name != "*")]:
            if name.lower() not in workflow.job_ids:
                yield name, self._job_of(name)
        yield "a", JOB
        yield "b", JOB

    def _jobs(self) -> Iterator[dict[str, Any]]:
        yield dict(list(self._missing_jobs())[:-2]) or {"a": JOB}

    def _job(self, given: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        job = self.rules.path[-1]
        if self._owed("needs", job):
            yield from (("needs", value) for value in self._needs())
        if self._owed("matrix", job):
            yield from (("strategy", {"matrix": value}) for value in self._matrix())
        outputs = self._owed("outputs", job.lower())
        if outputs and "outputs" not in given and "uses" not in given:
            yield "outputs", {name: "" for name in outputs}
        if not given.keys() & {"uses", "with", "secrets"}:
            if "runs-on" not in given:
                yield from (("runs-on", value) for value in self._runners())
            yield "steps", self._steps_value()
        yield "uses", self.rules.frames[-1].place.members["uses"].shortest

    def _steps_value(self) -> list[dict[str, Any]]:
        return [{"id": name, **STEP} for name in self._owed("steps", self.rules.path[1]) if name != "*"] or [
            {"id": "a", **STEP} if self._owed("steps", self.rules.path[1]) else STEP
        ]

    def _steps_items(self) -> Iterator[Any]:
        for name in self._owed("steps", self.rules.path[1]):
            yield {"id": "a" if name == "*" else name, **STEP}
        yield STEP

    def _step(self, given: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        yield "run", "true"
        uses = self.rules.frames[-1].place.members["uses"]
        yield from (("uses", value) for value in uses.format.words or [uses.shortest])

    def _runners(self) -> Iterator[Any]:
        yield from ("ubuntu-latest", "windows-latest", "self-hosted")

    def _needs(self) -> Iterator[Any]:
        job = self.rules.path[1]
        names = [name for name in self._owed("needs", job) if name != "*"]
        ids = self.rules.workflow.job_ids
        names = [ids.get(name, name) for name in names]
        if len(names) == 1:
            yield names[0]
        if names:
            yield names
        others = [other for other in self.rules.workflow.jobs if other != job]
        yield from (*others, "a", "b", "c")

    def _needs_items(self) -> Iterator[str]:
        yield from (value for value in self._needs() if isinstance(value, str))
        names = self._owed("needs", self.rules.path[1])
        ids = self.rules.workflow.job_ids
        yield from (ids.get(name, name) for name in names if name != "*")

    def _outputs(self, given: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        yield from ((name, "") for name in self._owed("outputs", self.rules.path[1].lower()))

    # -- matrix

    def _matrix(self) -> Iterator[Any]:
        names = self._owed("matrix", self.rules.path[1])
        if names:
            yield {name: ["a"] for name in names}
            yield {"a" if name == "*" else name: ANY_VALUE for name in names}
            yield ANY_VALUE
        yield {"a": ["a"]}

    def _rows(self, given: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        for name in self._owed("matrix", self.rules.path[1]):
            yield from ((name, value) for value in (["a"], ANY_VALUE, [{"a": "a"}]))
        exclude = next((value for key, value in given.items() if key.lower() == "exclude"), None)
        for combination in exclude if isinstance(exclude, list) else ():
            yield from ((name, [value]) for name, value in members(combination).items())
        yield "include", ANY_VALUE
        yield "a", ["a"]

    def _combination(self, given: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        matrix = self.rules.frames[-3].members
        for name, row in matrix.items():
            if isinstance(row, list) and name.lower() not in ("include", "exclude"):
                yield from ((name, value) for value in row)
            elif isinstance(row, str):
                yield name, "a"
        yield from (("a", "a"), ("b", "a"), ("a", ANY_VALUE))

    def _included(self) -> Iterator[Any]:
        """Yield combinations with what is excluded, if it must be in one."""
        *_, matrix, include = self.rules.frames
        found = OpenObject({**matrix.members, matrix.key: include.members})
        if any(key.lower() == "exclude" and isinstance(value, list) for key, value in found.items()):
            yield from ({name: value} for name, value in excluded_in_vain(found))

    # -- triggers

    def _on(self) -> Iterator[Any]:
        names = self._owed("inputs")
        if names:
            yield {"workflow_dispatch": {"inputs": {name: self._input(name) for name in names}}}
            yield {"workflow_call": {"inputs": {name: self._input(name) for name in names}}}
        yield "push"
        yield "fork"

    def _input(self, name: str) -> dict[str, str]:
        type = self.rules.assumed.get(name)
        return {"type": "boolean" if type is BOOL else "number" if type is A_NUMBER else "string"}

    def _events(self, given: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        inputs = {name: self._input(name) for name in self._owed("inputs")}
        if inputs:
            yield "workflow_dispatch", {"inputs": inputs}
            yield "workflow_call", {"inputs": inputs}
        yield "push", None

    def _inputs_of_event(self, given: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        if inputs := dict(self._new_inputs({})):
            yield "inputs", inputs
        if secrets := self._owed("secrets"):
            yield "secrets", {name: {} for name in secrets}

    def _new_inputs(self, given: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        event = self.rules.path[1]
        yield from ((name, self._input(name)) for name in sorted({*self._owed("inputs"), *self._owed("inputs", event)}))

    def _new_secrets(self, given: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        yield from ((name, {}) for name in self._owed("secrets"))

    def _input_settings(self, given: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        default = given.get("default")
        if given.get("type") == "choice" or "options" in given:
            yield "options", [default if isinstance(default, str) and default else compact(default) if default else "a"]
            yield "type", "choice"
        with suppress(IndexError):
            yield "type", self._input(self.rules.path[-1].lower())["type"]
        yield from (("type", type) for type in ("string", "boolean", "number"))

    def _options(self) -> Iterator[str]:
        default = self.rules.frames[-2].members.get("default")
        if default is not None:
            yield default if isinstance(default, str) else compact(default)
        yield from ("a", "b", "c")

    def _default(self) -> Iterator[Any]:
        given = self.rules.frames[-1].members
        yield from given.get("options", ())
        yield from ("a", True, 1, "true", "1")


VALUES = {
    "jobs": Closer._jobs,
    "jobs.*": lambda closer: iter([closer._job_of(closer.rules.path[-1])]),
    "jobs.*.steps": lambda closer: iter([closer._steps_value()]),
    "jobs.*.steps.*": Closer._steps_items,
    "jobs.*.runs-on": Closer._runners,
    "jobs.*.needs": Closer._needs,
    "jobs.*.needs.*": Closer._needs_items,
    "jobs.*.strategy": lambda closer: ({"matrix": value} for value in closer._matrix()),
    "jobs.*.strategy.matrix": Closer._matrix,
    "jobs.*.strategy.matrix.include.*": Closer._included,
    "jobs.*.outputs": lambda closer: iter([dict(closer._outputs({})) or {"a": ""}]),
    "on": Closer._on,
    "on.workflow_dispatch": lambda closer: iter([dict(closer._inputs_of_event({})), None]),
    "on.workflow_call": lambda closer: iter([dict(closer._inputs_of_event({})), None]),
    "on.workflow_dispatch.inputs": lambda closer: iter([dict(closer._new_inputs({}))]),
    "on.workflow_call.inputs": lambda closer: iter([dict(closer._new_inputs({}))]),
    "on.workflow_call.secrets": lambda closer: iter([dict(closer._new_secrets({}))]),
    "on.workflow_dispatch.inputs.*": lambda closer: iter([closer._input(closer.rules.path[-1].lower())]),
    "on.workflow_call.inputs.*": lambda closer: iter([closer._input(closer.rules.path[-1].lower())]),
    "on.workflow_dispatch.inputs.*.options.*": Closer._options,
    "on.workflow_dispatch.inputs.*.default": Closer._default,
    "on.workflow_call.inputs.*.default": Closer._default,
    "on.workflow_dispatch.inputs.*.type": lambda closer: iter(["string", "boolean", "number", "choice"]),
    "on.workflow_call.inputs.*.type": lambda closer: iter(["string", "boolean", "number"]),
}
ADDITIONS = {
    "jobs": lambda closer, given: closer._missing_jobs(),
    "jobs.*": Closer._job,
    "jobs.*.steps.*": Closer._step,
    "jobs.*.outputs": Closer._outputs,
    "jobs.*.strategy.matrix": Closer._rows,
    "jobs.*.strategy.matrix.exclude.*": Closer._combination,
    "on": Closer._events,
    "on.workflow_dispatch": Closer._inputs_of_event,
    "on.workflow_call": Closer._inputs_of_event,
    "on.workflow_dispatch.inputs": Closer._new_inputs,
    "on.workflow_call.inputs": Closer._new_inputs,
    "on.workflow_call.secrets": Closer._new_secrets,
    "on.workflow_dispatch.inputs.*": Closer._input_settings,
}


def shortest(place: Place) -> Any:
    """Return a short value that breaks no rule in a place."""
    if place.name == "jobs.*":
        return JOB
    if place.name == "jobs.*.steps.*":
        return STEP
    if place.shortest == {}:
        return shortest_object(place)
    return [shortest(place.item)] if place.shortest == [] and not place.may_be_empty else place.shortest


def shortest_object(place: Place) -> dict[str, Any]:
    """Return a short object that breaks no rule in a place."""
    value = {key: shortest(place.members[key]) for key in place.required}
    if value or place.may_be_empty:
        return value
    others = place.key.words[0] if place.key and place.key.words else "a"
    key, child = next(iter(place.members.items())) if place.members else (others, place.others)
    return {key: shortest(child)}
