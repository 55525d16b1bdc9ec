"""Run a model in a thread of its own, so that a server answers other requests meanwhile."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any


class ModelThread:
    """Load a model in the background. Later requests wait until it is loaded, and for each other."""

    def __init__(self, load: Callable[[], Any]):
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._model = self._thread.submit(load)
        self._latest: dict[str, Event] = {}  # for each method: set if its last call is over

    @property
    def is_loaded(self) -> bool:
        return self._model.done() and not self._model.exception()

    async def loaded(self) -> None:
        """Wait until the model is loaded. Raises what the loading raises."""
        await asyncio.shield(asyncio.wrap_future(self._model))

    async def ask(self, method: str, *arguments: Any) -> Any:
        """Return what a method of the model returns, or None if the model could not be loaded.

        Its last argument is a function that returns True if nobody needs the answer any more: because the caller was
        cancelled, or because the same method is called again.
        """
        over = Event()
        if method in self._latest:
            self._latest[method].set()
        self._latest[method] = over

        def answer():
            return None if self._model.exception() else getattr(self._model.result(), method)(*arguments, over.is_set)

        try:
            return await asyncio.wrap_future(self._thread.submit(answer))
        finally:
            over.set()
