"""A decorator for methods that compute each result once."""

from collections.abc import Callable
from functools import lru_cache
from types import MethodType


class memoised:
    """Remember the results of a method, by its arguments, for as long as the instance lives.

    `functools.cache` on a method would keep every instance alive, and would hash it at each call.
    """

    def __init__(self, method: Callable, maxsize: int | None = None):
        self._method, self._maxsize = method, maxsize

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance, owner: type | None = None) -> Callable:
        remembering = lru_cache(self._maxsize)(MethodType(self._method, instance))
        setattr(instance, self._name, remembering)  # later look-ups find this first; __dict__[...] would slow them down
        return remembering
