"""Keeps the gateway's worker processes running.

Each is a process of its own, so that nothing computed elsewhere can stall a request. One that ends by itself
is started again; one whose parent is gone ends.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
import time
from asyncio.subprocess import PIPE, Process
from pathlib import Path

_log = logging.getLogger(__name__)

DRAIN_SECONDS = 10
_READY_SECONDS = 30.0
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0


class WorkersNotReady(Exception):
    """The gateway's workers did not come up."""


class Supervisor:
    """The workers `w0`, `w1`, … that share one listening socket. Mutable state: the running processes."""

    def __init__(self, data_dir: Path, listener: socket.socket, workers: int) -> None:
        self._data_dir = data_dir
        self._listener = listener
        self._names = [f"w{index}" for index in range(workers)]
        self._processes: dict[str, Process] = {}
        self._keepers: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start every worker and wait until each accepts connections.

        Raises:
            WorkersNotReady: one of them ended or said nothing for half a minute.
        """
        for name in self._names:
            await self._spawn(name)
        self._keepers = [asyncio.create_task(self._keep(name)) for name in self._names]

    async def stop(self) -> None:
        """Let every worker finish its exchanges, then end; what is still there after that is killed.

        They are told by the end of their standard input. A signal may have reached them already, from a
        terminal or from whatever runs us, and a second one would cut their exchanges short.
        """
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        for process in self._running():
            assert process.stdin is not None  # noqa: S101 - it is a pipe, as asked for below
            process.stdin.close()
        try:
            await asyncio.wait_for(self._ended(), DRAIN_SECONDS + 2)
        except TimeoutError:
            for process in self._running():
                process.kill()
            await self._ended()

    def _running(self) -> list[Process]:
        return [process for process in self._processes.values() if process.returncode is None]

    async def _ended(self) -> None:
        await asyncio.gather(*(process.wait() for process in self._processes.values()))

    async def _keep(self, name: str) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while True:
            started = time.monotonic()
            code = await self._processes[name].wait()
            if time.monotonic() - started > _LONGEST_PAUSE_SECONDS:
                pause = _FIRST_PAUSE_SECONDS
            _log.error(
                "worker_ended", extra={"fields": {"worker": name, "code": code, "pause_seconds": pause}}
            )
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            try:
                await self._spawn(name)
            except (OSError, WorkersNotReady) as error:
                _log.error("worker_not_ready", extra={"fields": {"worker": name, "error": str(error)}})

    async def _spawn(self, name: str) -> None:
        process = await asyncio.create_subprocess_exec(
            *self._command(name), stdin=PIPE, stdout=PIPE, pass_fds=(self._listener.fileno(),)
        )
        self._processes[name] = process
        assert process.stdout is not None  # noqa: S101 - it is a pipe, as asked for above
        try:
            line = await asyncio.wait_for(process.stdout.readline(), _READY_SECONDS)
        except TimeoutError:
            process.kill()
            line = b""
        if line.strip() != b"ready":
            raise WorkersNotReady(f"gateway worker {name} did not get ready; its log is above")

    def _command(self, name: str) -> list[str]:
        # -P: a folder named `app` where the user happens to stand must not be taken for ours
        return [
            *(sys.executable, "-P", "-m", "app.gateway"),
            *("--data-dir", str(self._data_dir)),
            *("--worker", name),
            *("--fd", str(self._listener.fileno())),
            *("--drain-seconds", str(DRAIN_SECONDS)),
        ]
