"""How does work leave the loop? Over a bounded queue that one thread empties; what is too much is dropped."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

_log = logging.getLogger(__name__)
_Item = TypeVar("_Item")


class Backlog(Generic[_Item]):
    """Items on their way to `write`, which a thread of its own calls with some at a time.

    `write` gives the number of items that it lost. Batches are small, so that the loop never waits long for
    the interpreter, and a busy queue is left to fill for a moment, so that the loop seldom has to wake the
    thread. `put` belongs to one thread, the loop's.
    """

    def __init__(
        self,
        name: str,
        write: Callable[[list[_Item]], int],
        *,
        capacity: int,
        batch: int,
        gather_seconds: float,
    ) -> None:
        self._name = name
        self._write = write
        self._capacity = capacity
        self._batch = batch
        self._gather_seconds = gather_seconds
        self._queue: deque[_Item] = deque()
        self._refused = 0
        self._lost = 0
        self._idle = True
        self._closing = threading.Event()
        self._work = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """How many items never arrived."""
        return self._refused + self._lost

    def put(self, item: _Item) -> bool:
        """Hands an item over, or drops it where too many wait."""
        if len(self._queue) >= self._capacity or self._closing.is_set():
            self._refused += 1
            return False
        self._queue.append(item)
        if self._idle:
            self._idle = False
            self._work.set()
        return True

    def close(self, seconds: float) -> None:
        """Takes nothing any more, and waits this long for what has been taken. To be called off the loop."""
        self._closing.set()
        self._work.set()
        self._thread.join(seconds)
        if self._thread.is_alive():
            self._refused += len(self._queue)
            _log.warning("backlog was left", extra={"fields": {"of": self._name, "items": len(self._queue)}})

    def _run(self) -> None:
        while not self._closing.is_set():
            self._idle = True
            if not self._queue:
                self._work.wait()
            self._work.clear()
            self._closing.wait(self._gather_seconds)
            self._empty()
        self._empty()

    def _empty(self) -> None:
        queue = self._queue
        while queue:
            batch = [queue.popleft() for _ in range(min(len(queue), self._batch))]
            try:
                self._lost += self._write(batch)
            except Exception:  # noqa: BLE001  # the thread must outlive whatever is wrong with one batch
                self._lost += len(batch)
                _log.exception("batch was lost", extra={"fields": {"of": self._name, "items": len(batch)}})
            time.sleep(0)
