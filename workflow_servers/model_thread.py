"""Run a model in a thread of its own, so that a server answers other requests meanwhile."""

import asyncio
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
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

    async def last(self, steps: Callable[[Any], Generator]) -> Any:
        """Return what `steps(model)` yields last. If the caller is cancelled, the generator is closed at its next step.

        Returns None if it yields nothing, or if the model could not be loaded.
        """
        is_over = Event()

        def run():
            last = None
            if self._model.exception():
                return last
            with closing(steps(self._model.result())) as generator:
                for last in generator:
                    if is_over.is_set():
                        break
            return last

        try:
            return await asyncio.wrap_future(self._thread.submit(run))
        finally:
            is_over.set()
