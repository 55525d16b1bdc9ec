"""Small damages to JSON documents, such as people and programs do: to check verdicts on what is nearly right.

A mutation is a function (document, node, pool, rng) -> bool: it changes `node`, one container of the
document, or gives False where it does not apply to such a node.
"""

import random
from collections import defaultdict
from typing import Any

from tct.json_text import compact

AGAIN = "\u0000"  # before a key: stands for the same key once more, until the document is text
STRANGE = (
    "", " ", "x", "a b", "1a", "_", "true", "null", "3", "é", "🚀", "line\n", "\t", "x\n", "${{ a }}", "${{ a",
    "x ${{ a }} y", "a" * 300, None, True, False, 0, 1, -1, 3, 1.5, 3.0, 1e20, 10**30, [], {}, [[]], {"": ""},
)  # fmt: skip
Container = dict | list
MAX_VALUE = 500  # characters of the values that go from document to document


class Pool:
    """Keys and values to put into documents: of the schema, of other documents, and strange ones.

    Half of the time they are such as stand beside, or under, a given key elsewhere: those nearly fit.
    """

    def __init__(self, schema: Any, documents: list):
        keys, values = {"", "x", "not-a-key", "On", "${{ a }}"}, {}
        beside, under = defaultdict(set), defaultdict(dict)
        for node in _containers([schema, documents]):
            if isinstance(node, dict):
                keys.update(node)
            for key, child in node.items() if isinstance(node, dict) else enumerate(node):
                beside[key].update(node if isinstance(node, dict) else ())
                if len(text := compact(child)) < MAX_VALUE:
                    values[text] = under[key][text] = child
        self._keys = sorted(keys)
        self._values = [*values.values(), *STRANGE * (1 + len(values) // len(STRANGE))]
        self._beside = {key: sorted(others) for key, others in beside.items()}
        self._under = {key: list(found.values()) for key, found in under.items()}

    def key(self, node: dict, rng: random.Random) -> str:
        beside = self._beside.get(rng.choice(list(node))) if node and rng.random() < 0.5 else None
        return rng.choice(beside or self._keys)

    def value(self, key: str | int, rng: random.Random) -> Any:
        under = self._under.get(key) if rng.random() < 0.5 else None
        return _copy(rng.choice(under or self._values))


def mutate(document: Any, count: int, pool: Pool, rng: random.Random) -> tuple[str, list[str]]:
    """The compact JSON text of a copy of a document after `count` mutations, and their names.

    A key that comes twice is always the last of them: no value has that, only a text.
    """
    value, names = _copy(document), []
    while len(names) < count and "duplicate_key" not in names:
        mutation = rng.choice(MUTATIONS)
        if mutation(value, _somewhere(value, rng), pool, rng):
            names.append(mutation.__name__)
    return compact(value).replace(compact(AGAIN)[:-1], '"'), names


def _somewhere(value: Container, rng: random.Random) -> Container:
    """A container of the document: each level is as likely as the next."""
    path = [value]
    while True:
        children = path[-1].values() if isinstance(path[-1], dict) else path[-1]
        inner = [child for child in children if isinstance(child, Container)]
        if not inner:
            return rng.choice(path)
        path.append(rng.choice(inner))


def _containers(value: Any):
    todo = [value]
    while todo:
        node = todo.pop()
        if isinstance(node, Container):
            yield node
            todo += node.values() if isinstance(node, dict) else node


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(child) for key, child in value.items()}
    return [_copy(child) for child in value] if isinstance(value, list) else value


# ---------------------------------------------------------------------------------------------------------
# the mutations


def drop(document, node, pool, rng):
    """A member or an item less."""
    if not node:
        return False
    del node[_place(node, rng)]
    return True


def add(document, node, pool, rng):
    """A member or an item more, anywhere."""
    if isinstance(node, list):
        at = rng.randint(0, len(node))
        node.insert(at, pool.value(at, rng))
    else:
        members, key = list(node.items()), pool.key(node, rng)
        members.insert(rng.randint(0, len(node)), (key, pool.value(key, rng)))
        _refill(node, members)
    return True


def rename(document, node, pool, rng):
    """A member has another key."""
    if not node or isinstance(node, list):
        return False
    old, new = _place(node, rng), pool.key(node, rng)
    _refill(node, [(new if key == old else key, child) for key, child in node.items()])
    return True


def replace(document, node, pool, rng):
    """Another value in place of one."""
    if not node:
        return False
    place = _place(node, rng)
    node[place] = pool.value(place, rng)
    return True


def retype(document, node, pool, rng):
    """The same value as another type: in a list, out of a list, as a string, as a number."""
    if not node:
        return False
    place = _place(node, rng)
    child = node[place]
    others = [[child], {"x": child}, compact(child), None, True]
    if isinstance(child, list) and len(child) == 1:
        others.append(child[0])
    if isinstance(child, str) and child.isdecimal():
        others.append(int(child))
    if isinstance(child, int):
        others.append(float(child) if abs(child) < 2**53 else str(child))
    node[place] = rng.choice(others)
    return True


def edit_string(document, node, pool, rng):
    """A character more or less, or another: of a string, or of a key."""
    if not node:
        return False
    place = _place(node, rng)
    if isinstance(node[place], str):
        node[place] = _edited(node[place], rng)
    elif isinstance(node, dict):
        _refill(node, [(_edited(key, rng) if key == place else key, child) for key, child in node.items()])
    else:
        return False
    return True


def reorder(document, node, pool, rng):
    """The same members or items, in another order."""
    if len(node) < 2:
        return False
    if isinstance(node, list):
        rng.shuffle(node)
    else:
        members = list(node.items())
        rng.shuffle(members)
        _refill(node, members)
    return True


def truncate(document, node, pool, rng):
    """Only the first items, or members."""
    if not node:
        return False
    count = rng.randrange(len(node))
    for place in list(node)[count:] if isinstance(node, dict) else [slice(count, None)]:
        del node[place]
    return True


def repeat_item(document, node, pool, rng):
    """An item twice."""
    if not node or isinstance(node, dict):
        return False
    node.append(_copy(rng.choice(node)))
    return True


def graft(document, node, pool, rng):
    """A part of the document once more, elsewhere."""
    if not node:
        return False
    node[_place(node, rng)] = _copy(_somewhere(document, rng))
    return True


def duplicate_key(document, node, pool, rng):
    """A member whose key comes twice."""
    if not node or isinstance(node, list):
        return False
    key = _place(node, rng)
    node[AGAIN + key] = node[key] if rng.random() < 0.5 else pool.value(key, rng)
    return True


MUTATIONS = (
    drop, add, rename, replace, retype, edit_string, reorder, truncate, repeat_item, graft, duplicate_key,
)  # fmt: skip


def _place(node: Container, rng: random.Random) -> str | int:
    """A key or an index of it."""
    return rng.choice(list(node)) if isinstance(node, dict) else rng.randrange(len(node))


def _refill(node: dict, members: list[tuple[str, Any]]) -> None:
    """Other members; where a key comes twice, the last one counts, at the place of the first."""
    node.clear()
    node.update(members)


def _edited(text: str, rng: random.Random) -> str:
    at = rng.randint(0, len(text))
    return text[:at] + rng.choice(("", "x", "-", "1", "\n", " ", "é", "*")) + text[at + rng.randint(0, 1) :]
