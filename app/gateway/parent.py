"""What a worker and the process that started it say to each other, over the worker's standard streams.

The worker writes a line when it is ready, each second while its loop turns, when it begins to drain, and when
it cannot run. The parent says nothing: the end of the worker's standard input means that it has to end, and
`LAME_DUCK_SIGNAL` before that, that it will have to soon.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import stat
import sys
from collections.abc import Callable

READY = "ready"
ALIVE = "alive"
DRAINING = "draining"
FAILED = "failed: "
ALIVE_SECONDS = 1.0
LAME_DUCK_SIGNAL = signal.SIGUSR1


class Parent:
    """The process that started this one. Where it is no program but a person or a file, little is said."""

    def __init__(self) -> None:
        self._stdin, self._stdout = 0, 1
        self._listens = _is_pipe(self._stdout)
        if self._listens:
            os.set_blocking(self._stdout, False)

    def watch(self, loop: asyncio.AbstractEventLoop, on_end: Callable[[], None]) -> None:
        """Have `on_end` called when the parent is gone, or wants this process to be."""
        if _is_pipe(self._stdin):
            loop.add_reader(self._stdin, self._on_input, loop, on_end)

    def say(self, line: str) -> None:
        """Tell the parent; one that is gone, or has not listened for hours, does not hold this one up."""
        if self._listens:
            with contextlib.suppress(BlockingIOError, BrokenPipeError):
                os.write(self._stdout, f"{line}\n".encode())
        elif line == READY:
            print(line, file=sys.stdout, flush=True)

    def _on_input(self, loop: asyncio.AbstractEventLoop, on_end: Callable[[], None]) -> None:
        try:
            ended = os.read(self._stdin, 4096) == b""
        except BlockingIOError:
            return
        except OSError:
            ended = True  # a socket whose other end was killed
        if ended:
            loop.remove_reader(self._stdin)
            on_end()


def _is_pipe(descriptor: int) -> bool:
    """Whether a stream is a pipe, in one of the forms that asyncio gives a subprocess."""
    try:
        mode = os.fstat(descriptor).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
