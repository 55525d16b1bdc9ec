"""What an expression can refer to at one place of a workflow, which may be complete or still being written.

A workflow that is being written is a value whose last containers are an `OpenObject` or `OpenArray`: they may get more
members. `PENDING` stands for a value that has not begun or is not complete. What may still come is promised: a type
`grows` if a property may be added to what it describes.
"""

import re
from collections.abc import Iterator, Mapping
from functools import cached_property, reduce
from typing import Any

from .expressions import ExpressionError, parse
from .types import (
    ANY,
    BOOL,
    LOOSE,
    NULL,
    NUMBER,
    STATIC_CONTEXTS,
    STRING,
    STRINGS,
    Array,
    Fault,
    Object,
    Type,
    Typing,
    Undecided,
    merge,
)

Path = tuple[str | int, ...]

IDENTIFIER = re.compile(r"(?!__)[A-Za-z_][A-Za-z0-9_-]{0,98}\Z")  # of a job or step
# A text that is one expression, among what Go takes for blanks.
EXPRESSION = re.compile(r"[^\S\x1c-\x1f]*\$\{\{((?:(?!\$\{\{).)*)\}\}[^\S\x1c-\x1f]*\Z", re.DOTALL)
FLOAT = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?\Z|[+-]?(?:inf|infinity)\Z|nan\Z", re.IGNORECASE)
STRATEGY_CONTEXTS = frozenset(["github", "inputs", "needs", "vars"])
BUILT_IN_SECRETS = dict.fromkeys(["github_token", "actions_step_debug", "actions_runner_debug"], STRING)
INPUT_TYPES = {"string": STRING, "choice": STRING, "environment": STRING, "boolean": BOOL, "number": NUMBER}


class OpenObject(dict):
    """An object that may get more members."""


class OpenArray(list):
    """An array that may get more items."""


class Pending:
    """A value that has not begun or is not complete."""

    def __repr__(self) -> str:
        return "PENDING"


PENDING = Pending()


def may_come(container: Any, key: str) -> bool:
    """Is the value of a key still to come, or still to be completed?"""
    if container is PENDING:
        return True
    if not isinstance(container, dict):
        return False
    return container.get(key) is PENDING or key not in container and isinstance(container, OpenObject)


def is_complete(value: Any) -> bool:
    """Can a value no longer change?"""
    return not (value is PENDING or isinstance(value, (OpenObject, OpenArray)))


def members(value: Any) -> dict[str, Any]:
    """Return the members of an object; no members of anything else."""
    return value if isinstance(value, dict) else {}


def items(value: Any) -> list[Any]:
    """Return the items of an array; no items of anything else."""
    return value if isinstance(value, list) else []


def lower(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object with its keys in lower case. GitHub compares names so."""
    return {key.lower(): member for key, member in value.items()}


class Workflow:
    """A workflow, complete or not, and what its parts promise.

    `promised` has the jobs that each job must need, because an expression uses their results: lower-case ids by id.
    `assumed` has the types of inputs that are used before they are declared, `owed_inputs` those of workflow_dispatch.
    """

    def __init__(
        self,
        root: Any,
        promised: Mapping[str, frozenset[str]] = {},
        assumed: Mapping[str, Type] = {},
        owed_inputs: frozenset[str] = frozenset(),
    ):
        self.root, self.promised, self.assumed, self.owed_inputs = members(root), promised, assumed, owed_inputs
        self.is_open = not is_complete(root)
        self._contexts: dict[tuple[str, str | None], Type] = {}

    @cached_property
    def events(self) -> dict[str, Any]:
        """The events that trigger the workflow, with their settings."""
        on = self.root.get("on")
        if isinstance(on, list):
            return {event: None for event in on if isinstance(event, str)}
        return {on: None} if isinstance(on, str) else members(on)

    @cached_property
    def events_may_come(self) -> bool:
        """May there be more events with settings?"""
        return may_come(self.root, "on") or self.is_open and "on" not in self.root or self._is_open_object("on")

    def _is_open_object(self, key: str) -> bool:
        return isinstance(self.root.get(key), OpenObject)

    @cached_property
    def jobs(self) -> dict[str, Any]:
        return members(self.root.get("jobs"))

    @cached_property
    def jobs_may_come(self) -> bool:
        return self.is_open and "jobs" not in self.root or may_come(self.root, "jobs") or self._is_open_object("jobs")

    @cached_property
    def job_ids(self) -> dict[str, str]:
        """The ids of the jobs by their names in lower case."""
        return {job.lower(): job for job in self.jobs}

    def needs_of(self, job: str) -> list[str]:
        """Return the jobs that a job says it needs."""
        needs = members(self.jobs.get(job)).get("needs")
        needs = needs if isinstance(needs, list) else [needs]
        return [need for need in needs if isinstance(need, str)]

    def all_needs_of(self, job: str) -> set[str]:
        """Return the lower-case ids of all jobs that a job needs or must need."""
        return {need.lower() for need in self.needs_of(job)} | self.promised.get(job, frozenset())

    def depends(self, job: str, on: str) -> bool:
        """Does a job need another one, directly or not? The ids are in lower case."""
        seen, todo = set(), [job]
        while todo:
            if (job := todo.pop()) == on:
                return True
            if job not in seen and job in self.job_ids:
                seen.add(job)
                todo += self.all_needs_of(self.job_ids[job])
        return False

    def context(self, name: str, path: Path) -> Type:
        """Return the type of a context at a place."""
        job = path[1] if path[0] == "jobs" and len(path) > 1 else None
        if name == "steps" and path[2:3] == ("steps",) and len(path) > 3:
            return Object(EarlierSteps(self._step_types(job), path[3]))
        if name == "inputs" and path[:3] == ("on", "workflow_call", "inputs"):
            return self._earlier_inputs(path[3])
        if (name, job) not in self._contexts:
            find = getattr(self, f"_{name}", None)
            self._contexts[name, job] = find(job) if find else STATIC_CONTEXTS[name]
        return self._contexts[name, job]

    # -- triggers

    def _github(self, job: str | None) -> Type:
        github, event = STATIC_CONTEXTS["github"], "workflow_dispatch"
        if event in self.events:
            inputs, grows = self._inputs_of(event)
            type: Type = Object(
                dict.fromkeys(inputs, STRING),
                grows=is_input_name if grows else None,
                owner=("inputs", event),
                unknown=STRING,
            )
        elif self.events_may_come or isinstance(self.root.get("on"), OpenArray):
            type = Undecided(owner=("inputs",))
        else:
            return github
        return Object({**github.properties, "event": Object({"inputs": type}, others=ANY)})

    def _inputs(self, job: str | None) -> Type:
        found, may_grow = [], False
        for event in ("workflow_call", "workflow_dispatch"):
            if event not in self.events:
                may_grow |= self.events_may_come
            else:
                inputs, grows = self._inputs_of(event)
                found.append(Object({name: self._input_type(event, value) for name, value in inputs.items()}))
                may_grow |= grows
        properties = reduce(merge, found).properties if found else {}
        return Object(
            properties,
            grows=is_input_name if may_grow else None,
            owner=("inputs",),
            unknown=lambda name: self.assumed.get(name, STRING),
        )

    def _inputs_of(self, event: str) -> tuple[dict[str, Any], bool]:
        """Return the inputs of an event in lower case, and whether more may come."""
        settings = self.events[event]
        inputs = members(settings).get("inputs")
        may_grow = may_come(settings, "inputs") or isinstance(inputs, OpenObject)
        return lower(members(inputs)), may_grow

    @staticmethod
    def _input_type(event: str, value: Any) -> Type:
        type = members(value).get("type")
        return INPUT_TYPES.get(type, ANY) if isinstance(type, str) else ANY

    def _earlier_inputs(self, name: str) -> Type:
        """Return the inputs that the default of an input may use: those before it."""
        inputs, _ = self._inputs_of("workflow_call")
        earlier = {}
        for key, value in inputs.items():
            if key == name.lower():
                break
            earlier[key] = self._input_type("workflow_call", value)
        for event in self.events:
            if event == "workflow_call":
                return Object(earlier)
            if event == "workflow_dispatch":
                dispatch, _ = self._inputs_of(event)
                earlier = {**{key: self._input_type(event, value) for key, value in dispatch.items()}, **earlier}
        return Object(earlier)

    def _secrets(self, job: str | None) -> Type:
        if "workflow_call" not in self.events:
            return Object({}, STRING) if not self.events_may_come else self._growing_secrets({})
        call = self.events["workflow_call"]
        if may_come(call, "secrets"):
            return self._growing_secrets({})
        secrets = members(call).get("secrets")
        if not isinstance(secrets, dict):
            return STRINGS
        properties = {**BUILT_IN_SECRETS, **dict.fromkeys(lower(secrets), STRING)}
        return self._growing_secrets(properties) if isinstance(secrets, OpenObject) else Object(properties)

    @staticmethod
    def _growing_secrets(properties: dict[str, Type]) -> Type:
        return Object(properties, grows=is_input_name, owner=("secrets",), unknown=STRING)

    # -- jobs

    def _jobs(self, job: str | None) -> Type:
        properties = {key: Object({"outputs": self._outputs_of(key)}) for key in lower(self.jobs)}
        grows = is_new_name if self.jobs_may_come else None
        return Object(
            properties, grows=grows, owner=("jobs",), unknown=lambda name: Object({"outputs": _growing_outputs(name)})
        )

    def _needs(self, job: str) -> Type:
        holder = members(self.jobs.get(job))
        needs = holder.get("needs")
        may_grow = may_come(holder, "needs") or isinstance(needs, OpenArray)
        known = [need for need in map(str.lower, self.needs_of(job)) if need in self.job_ids or self.jobs_may_come]
        return Object(
            {need: self._needed(need) for need in known},
            grows=(lambda name: name == "*" or self.can_need(job, name)) if may_grow else None,
            owner=("needs", job),
            unknown=self._needed,
        )

    def _needed(self, name: str) -> Type:
        outputs = self._outputs_of(name) if name in self.job_ids else _growing_outputs(name)
        return Object({"outputs": outputs, "result": STRING})

    def can_need(self, job: str, need: str) -> bool:
        """May a job need another one, now or when that one is written?"""
        need = need.lower()
        if need in self.job_ids:
            return not self.depends(need, job.lower())
        return self.jobs_may_come and is_identifier(need)

    def _outputs_of(self, job: str) -> Type:
        """Return the type of the outputs of a job, given its id in lower case."""
        holder = self.jobs[self.job_ids[job]]
        if "uses" in members(holder):
            return STRINGS
        outputs = members(holder).get("outputs")
        names = dict.fromkeys(lower(members(outputs)), STRING)
        may_grow = may_come(holder, "outputs") or isinstance(outputs, OpenObject)
        return _growing_outputs(job, names) if may_grow else Object(names)

    def _steps(self, job: str) -> Type:
        holder = members(self.jobs.get(job))
        may_grow = may_come(holder, "steps") or isinstance(holder.get("steps"), OpenArray)
        return Object(
            {name: type for name, (_, type) in self._step_types(job).items()},
            grows=is_new_name if may_grow else None,
            owner=("steps", job),
            unknown=STEP,
        )

    def _step_types(self, job: str) -> dict[str, tuple[int, Type]]:
        """Return the index and the type of each step with an id, by id in lower case."""
        if ("step types", job) not in self._contexts:
            steps, found = members(self.jobs.get(job)).get("steps"), {}
            for index, step in enumerate(items(steps)):
                if isinstance(id := members(step).get("id"), str):
                    uses = step.get("uses")
                    is_script = isinstance(uses, str) and uses.startswith("actions/github-script@")
                    found.setdefault(id.lower(), (index, SCRIPT_STEP if is_script else STEP))
            self._contexts["step types", job] = found
        return self._contexts["step types", job]

    # -- the matrix

    def _matrix(self, job: str) -> Type:
        holder = members(self.jobs.get(job))
        strategy = holder.get("strategy")
        if may_come(holder, "strategy") or may_come(strategy, "matrix"):
            return Object(grows=lambda name: True, owner=("matrix", job))
        matrix = members(strategy).get("matrix")
        if isinstance(matrix, str):
            return self._dynamic_matrix(matrix, job)
        return self._static_matrix(members(matrix), job)

    def _dynamic_matrix(self, text: str, job: str) -> Type:
        type = self._type_of_text(text, job)
        if not isinstance(type, Object):
            return LOOSE
        properties = {name: value for name, value in type.properties.items() if name not in ("include", "exclude")}
        include = type.properties.get("include")
        if isinstance(include, Array) and isinstance(include.element, Object):
            for name, value in include.element.properties.items():
                properties[name] = merge(properties[name], value) if name in properties else value
        return Object(properties, type.others)

    def _static_matrix(self, matrix: dict[str, Any], job: str) -> Type:
        include = matrix.get("include")
        is_open = isinstance(matrix, OpenObject)
        if isinstance(include, str):
            return self._dynamic_include(matrix, include, job)
        type = Object({name: self._row_type(row, job) for name, row in self._rows(matrix)})
        for combination in items(include):
            if isinstance(combination, dict):
                added = {name: self._value_type(value, job) for name, value in lower(combination).items()}
                properties = dict(type.properties)
                for name, value in added.items():
                    properties[name] = merge(properties[name], value) if name in properties else value
                type = Object(properties)
        if not is_open:
            return type
        may_include = "include" not in matrix or not is_complete(include)
        fixed = {} if may_include else {name: type.properties[name] for name, _ in self._rows(matrix)}
        return Object(fixed, grows=lambda name: name not in ("include", "exclude"), owner=("matrix", job))

    @staticmethod
    def _rows(matrix: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        """Yield the names and values of the rows that are complete."""
        for name, row in lower(matrix).items():
            if name not in ("include", "exclude") and is_complete(row):
                yield name, row

    def _dynamic_include(self, matrix: dict[str, Any], include: str, job: str) -> Type:
        type = self._type_of_text(include, job)
        rows = Object({name: self._row_type(row, job) for name, row in self._rows(matrix)})
        merged = merge(rows, type.element) if isinstance(type, Array) else ANY
        return merged if isinstance(merged, Object) else LOOSE

    def _row_type(self, row: Any, job: str) -> Type:
        if isinstance(row, str):
            type = self._type_of_text(row, job)
            return type.element if isinstance(type, Array) else ANY
        return reduce(merge, (self._value_type(value, job) for value in items(row))) if items(row) else ANY

    def _value_type(self, value: Any, job: str) -> Type:
        """Return the type of a value in a matrix. Its text decides: "1.5" is a number."""
        if isinstance(value, dict):
            return Object({key: self._value_type(member, job) for key, member in lower(value).items()})
        if isinstance(value, list):
            return Array(reduce(merge, (self._value_type(item, job) for item in value)) if value else ANY)
        if not isinstance(value, str):
            return BOOL if isinstance(value, bool) else NULL if value is None else NUMBER
        if EXPRESSION.match(value):
            return self._type_of_text(value, job)
        text = value.strip()
        return {"true": BOOL, "false": BOOL, "null": NULL}.get(text) or (NUMBER if FLOAT.match(text) else STRING)

    def _type_of_text(self, text: str, job: str) -> Type:
        """Return the type of a text that is one expression, or ANY if it is not, or breaks a rule."""
        path = ("jobs", job, "strategy", "matrix")
        typing = Typing(lambda name: self.context(name, path), STRATEGY_CONTEXTS, frozenset())
        try:
            return typing.type_of(parse(EXPRESSION.match(text)[1]))
        except (ExpressionError, Fault, TypeError):
            return ANY


STEP = Object({"outputs": STRINGS, "conclusion": STRING, "outcome": STRING})
SCRIPT_STEP = Object({"outputs": LOOSE, "conclusion": STRING, "outcome": STRING})


class EarlierSteps(Mapping):
    """The steps before a step, by id in lower case."""

    def __init__(self, types: dict[str, tuple[int, Type]], end: int):
        self._types, self._end = types, end

    def __getitem__(self, name: str) -> Type:
        index, type = self._types[name]
        if index >= self._end:
            raise KeyError(name)
        return type

    def __iter__(self) -> Iterator[str]:
        return (name for name, (index, _) in self._types.items() if index < self._end)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _growing_outputs(job: str, known: Mapping[str, Type] = {}) -> Object:
    return Object(known, grows=is_identifier, owner=("outputs", job), unknown=STRING)


def is_new_name(name: str) -> bool:
    """May a job or step that is still to come have this name? "*" stands for any."""
    return name == "*" or is_identifier(name)


def is_identifier(name: str) -> bool:
    """May a job, a step or an output have this name?"""
    return IDENTIFIER.match(name) is not None


def is_input_name(name: str) -> bool:
    """May an input have this name?"""
    return re.match(r"[A-Za-z_][A-Za-z0-9_-]*\Z", name) is not None
