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

    @property
    def is_loaded(self) -> bool:
        return self._model.done() and not self._model.exception()

    async def loaded(self) -> None:
        """Wait until the model is loaded. Raises what the loading raises."""
        await asyncio.shield(asyncio.wrap_future(self._model))

    async def ask(self, question: Callable[[Any, Callable[[], bool]], Any]) -> Any:
        """Return `question(model, is_over)`, or None if the model could not be loaded.

        `is_over` is a function that returns True if nobody waits for the answer any more.
        """
        over = Event()

        def answer():
            return None if self._model.exception() else question(self._model.result(), over.is_set)

        try:
            return await asyncio.wrap_future(self._thread.submit(answer))
        finally:
            over.set()
