"""Small mutations of JSON documents, as people and programs make them, to test verdicts on nearly valid documents.

A mutation is a function (document, node, pool, rng), which changes `node`, one container of the document. It returns
False if it has changed nothing.
"""

import random
from collections import defaultdict
from typing import Any

from tct.json_text import compact

AGAIN = "\u0000"  # marks a key that repeats the key after it; removed from the text
STRANGE = (
    "", " ", "x", "a b", "1a", "_", "true", "null", "3", "é", "🚀", "line\n", "\t", "x\n", "${{ a }}", "${{ a",
    "x ${{ a }} y", "a" * 300, None, True, False, 0, 1, -1, 3, 1.5, 3.0, 1e20, 10**30, [], {}, [[]], {"": ""},
)  # fmt: skip
Container = dict | list
MAX_VALUE = 500  # characters of the values that are copied from document to document


class Pool:
    """Keys and values to put into documents: from the schema, from other documents, and strange ones.

    Half of them are found next to, or under, the same key elsewhere, because these nearly fit.
    """

    def __init__(self, schema: Any, documents: list):
        keys, values = {"", "x", "not-a-key", "On", "${{ a }}"}, {}
        siblings, under = defaultdict(set), defaultdict(dict)
        for node in _containers([schema, documents]):
            if isinstance(node, dict):
                keys.update(node)
            for key, child in node.items() if isinstance(node, dict) else enumerate(node):
                siblings[key].update(node if isinstance(node, dict) else ())
                if len(text := compact(child)) < MAX_VALUE:
                    values[text] = under[key][text] = child
        self._keys = sorted(keys)
        self._values = [*values.values(), *STRANGE * (1 + len(values) // len(STRANGE))]
        self._siblings = {key: sorted(found) for key, found in siblings.items()}
        self._under = {key: list(found.values()) for key, found in under.items()}

    def key(self, node: dict, rng: random.Random) -> str:
        siblings = self._siblings.get(rng.choice(list(node))) if node and rng.random() < 0.5 else None
        return rng.choice(siblings or self._keys)

    def value(self, key: str | int, rng: random.Random) -> Any:
        under = self._under.get(key) if rng.random() < 0.5 else None
        return _copy(rng.choice(under or self._values))


def mutate(document: Any, count: int, pool: Pool, rng: random.Random) -> tuple[str, list[str]]:
    """Return the compact JSON text of a copy of a document after `count` mutations, and the names of the mutations.

    `duplicate_key` is always the last one, because no value, only a text, can repeat a key.
    """
    value, names = _copy(document), []
    while len(names) < count and "duplicate_key" not in names:
        mutation = rng.choice(list(MUTATIONS))
        kind, least = MUTATIONS[mutation]
        node = _somewhere(value, rng)
        if isinstance(node, kind) and len(node) >= least and mutation(value, node, pool, rng) is not False:
            names.append(mutation.__name__)
    return compact(value).replace(compact(AGAIN)[:-1], '"'), names


def _somewhere(value: Container, rng: random.Random) -> Container:
    """Return a container of the document. Each level is equally likely."""
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


# -- the mutations


def drop(document, node, pool, rng):
    del node[_random_key(node, rng)]


def add(document, node, pool, rng):
    """Insert a member or an item anywhere."""
    if isinstance(node, list):
        at = rng.randint(0, len(node))
        node.insert(at, pool.value(at, rng))
    else:
        members, key = list(node.items()), pool.key(node, rng)
        members.insert(rng.randint(0, len(node)), (key, pool.value(key, rng)))
        _refill(node, members)


def rename(document, node, pool, rng):
    old, new = _random_key(node, rng), pool.key(node, rng)
    _refill(node, [(new if key == old else key, child) for key, child in node.items()])


def replace(document, node, pool, rng):
    key = _random_key(node, rng)
    node[key] = pool.value(key, rng)


def retype(document, node, pool, rng):
    """Change the type of a value: put it in a list, take it out of one, make it a string or a number."""
    key = _random_key(node, rng)
    child = node[key]
    options = [[child], {"x": child}, compact(child), None, True]
    if isinstance(child, list) and len(child) == 1:
        options.append(child[0])
    if isinstance(child, str) and child.isdecimal():
        options.append(int(child))
    if isinstance(child, int):
        options.append(float(child) if abs(child) < 2**53 else str(child))
    node[key] = rng.choice(options)


def edit_string(document, node, pool, rng):
    """Insert, delete or replace a character of a string or a key."""
    key = _random_key(node, rng)
    if isinstance(node[key], str):
        node[key] = _edited(node[key], rng)
    elif isinstance(node, dict):
        _refill(node, [(_edited(old, rng) if old == key else old, child) for old, child in node.items()])
    else:
        return False


def reorder(document, node, pool, rng):
    """Shuffle members or items."""
    if isinstance(node, list):
        rng.shuffle(node)
    else:
        members = list(node.items())
        rng.shuffle(members)
        _refill(node, members)


def truncate(document, node, pool, rng):
    """Keep only the first items or members."""
    count = rng.randrange(len(node))
    for key in list(node)[count:] if isinstance(node, dict) else [slice(count, None)]:
        del node[key]


def repeat_item(document, node, pool, rng):
    node.append(_copy(rng.choice(node)))


def graft(document, node, pool, rng):
    """Copy a part of the document to another place."""
    node[_random_key(node, rng)] = _copy(_somewhere(document, rng))


def duplicate_key(document, node, pool, rng):
    """Repeat the key of a member."""
    key = _random_key(node, rng)
    node[AGAIN + key] = node[key] if rng.random() < 0.5 else pool.value(key, rng)


MUTATIONS = {  # -> the containers to which it applies, and the least number of their members
    drop: (Container, 1),
    add: (Container, 0),
    rename: (dict, 1),
    replace: (Container, 1),
    retype: (Container, 1),
    edit_string: (Container, 1),
    reorder: (Container, 2),
    truncate: (Container, 1),
    repeat_item: (list, 1),
    graft: (Container, 1),
    duplicate_key: (dict, 1),
}


def _random_key(node: Container, rng: random.Random) -> str | int:
    """Return a random key or index of a container."""
    return rng.choice(list(node)) if isinstance(node, dict) else rng.randrange(len(node))


def _refill(node: dict, members: list[tuple[str, Any]]) -> None:
    """Replace all members. If a key is repeated, the last value counts, at the position of the first."""
    node.clear()
    node.update(members)


def _edited(text: str, rng: random.Random) -> str:
    at = rng.randint(0, len(text))
    return text[:at] + rng.choice(("", "x", "-", "1", "\n", " ", "é", "*")) + text[at + rng.randint(0, 1) :]
