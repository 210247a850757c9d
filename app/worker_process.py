"""One gateway worker as its supervisor sees it: is it ready, does it live, is it about to leave?"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from asyncio.subprocess import PIPE, Process
from dataclasses import replace

from app.gateway.options import Options
from app.gateway.parent import DRAINING, FAILED, LAME_DUCK_SIGNAL, READY

READY_SECONDS = 30.0

_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1"}
"""Each worker has one core, and its matrices are small: numpy's own threads would only wait beside it."""


class WorkersNotReady(Exception):
    """The gateway's workers did not come up."""


class WorkerProcess:
    """A process of `app.gateway`, which says each second that it lives, and ends with its input.

    Mutable state: `heard_at`, when it last said anything, by the loop's clock; `leaving`, set when it drains
    or has ended.
    """

    def __init__(self, name: str, process: Process) -> None:
        self.name = name
        self.started_at = self.heard_at = asyncio.get_running_loop().time()
        self.leaving = asyncio.Event()
        self.is_ready = False
        self._process = process
        self._listener: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        state = "running" if self.is_running else f"ended with {self._process.returncode}"
        return f"<WorkerProcess {self.name} {self.pid} {state}>"

    @classmethod
    async def start(cls, options: Options) -> WorkerProcess:
        """Start one; it is not ready yet.

        Raises:
            OSError: the system refuses another process.
        """
        # its standard output is ours to listen to; an access log goes to what is our own
        stdout_fd = os.dup(1)
        told = replace(options, stdout_fd=stdout_fd)
        try:
            # -P: a folder named `app` where the user happens to stand must not be taken for ours
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "app.gateway", *told.arguments()),
                stdin=PIPE,
                stdout=PIPE,
                pass_fds=(options.listener_fd, stdout_fd),
                env={**_ONE_THREAD, **os.environ, **options.variables()},
            )
        finally:
            os.close(stdout_fd)
        return cls(options.worker, process)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.returncode is None

    async def ready(self) -> None:
        """Wait until it accepts connections.

        Raises:
            WorkersNotReady: it ended, or said nothing for half a minute; the message has its reason.
        """
        try:
            async with asyncio.timeout(READY_SECONDS):
                line = await self._line()
        except TimeoutError:
            line = f"{FAILED}it said nothing for {READY_SECONDS:g} s"
        if line != READY:
            self.kill()
            self.leaving.set()
            why = f": {line.removeprefix(FAILED)}" if line.startswith(FAILED) else "; its log is above"
            raise WorkersNotReady(f"gateway worker {self.name} did not get ready{why}")
        self.heard_at = asyncio.get_running_loop().time()
        self.is_ready = True
        self._listener = asyncio.create_task(self._listen())

    def be_lame_duck(self) -> None:
        """Have it say that it is not ready, and answer on: whoever asks is asked to close the connection."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(LAME_DUCK_SIGNAL)

    def drain(self) -> None:
        """Let it finish its exchanges and end.

        A signal may have reached it already, from a terminal or from whatever runs us, and a second one would
        cut its exchanges short.
        """
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe, as asked for above
        self._process.stdin.close()

    def kill(self) -> None:
        """End it at once."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def ended(self) -> int:
        """Wait for its end; gives its exit status, negative for a signal's number."""
        return await self._process.wait()

    async def _listen(self) -> None:
        while line := await self._line():
            self.heard_at = asyncio.get_running_loop().time()
            if line == DRAINING:
                self.leaving.set()
        await self.ended()
        self.leaving.set()

    async def _line(self) -> str:
        """What it says next; empty when it says no more."""
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe, as asked for above
        return (await self._process.stdout.readline()).decode("utf-8", "replace").strip()
