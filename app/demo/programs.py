"""The programs that the demonstration starts: each has a log of its own and is stopped at the end."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from app.demo.errors import DemoFailed

_STOP_SECONDS = 15.0
_READY_SECONDS = 45.0
_LOOK_SECONDS = 0.05
_TAIL_LINES = 25
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""Models score one row at a time: more threads would only take the cores from each other."""


@dataclass(frozen=True, slots=True)
class Program:
    """A running program. `log` holds all that it says."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    async def says(self, pattern: str) -> str:
        """Wait until the program says something; gives the pattern's first group.

        Raises:
            DemoFailed: it ended, or has not said it in time.
        """
        deadline = time.monotonic() + _READY_SECONDS
        while (found := re.search(pattern, self.text())) is None:
            if self.process.poll() is not None:
                raise DemoFailed(f"{self.name} ended with code {self.process.returncode}", self.tail())
            if time.monotonic() > deadline:
                raise DemoFailed(f"{self.name} did not get ready within {_READY_SECONDS:g} s", self.tail())
            await asyncio.sleep(_LOOK_SECONDS)
        return found[1]

    def text(self) -> str:
        """All that the program has said."""
        return self.log.read_text("utf-8", errors="replace")

    def tail(self) -> str:
        """The last lines that it has said."""
        return "\n".join(self.text().splitlines()[-_TAIL_LINES:])

    def stop(self) -> None:
        """Wait for the end of a program that was told to; what does not end is killed, with its children."""
        try:
            self.process.wait(_STOP_SECONDS)
        except BaseException as error:
            _kill(self.process.pid)
            self.process.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise


class Programs:
    """Starts programs, and on leaving stops them all, whatever has happened.

    Each is the head of a process group, out of reach of the terminal's Ctrl-C, so that they end in order.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.running: list[Program] = []

    def __enter__(self) -> Programs:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for program in self.running:
            program.process.terminate()
        while self.running:
            try:
                self.running.pop().stop()
            except KeyboardInterrupt:
                continue  # somebody is in a hurry: the rest ends as well, but is given less time

    def start(self, name: str, command: Sequence[str]) -> Program:
        """Start a program; its standard output and error go to a log.

        Raises:
            DemoFailed: it cannot be started.
        """
        log = self._folder / f"{name}.log"
        try:
            process = _started(command, log)
        except OSError as error:
            raise DemoFailed(f"{name} cannot be started: {error}") from error
        program = Program(name, process, log)
        self.running.append(program)
        return program


def python(*arguments: str) -> list[str]:
    """The command that runs a module of ours. -P: a folder where the user stands is not taken for ours."""
    return [sys.executable, "-P", "-m", *arguments]


def kingmaker(*arguments: str) -> list[str]:
    """The command that a user types."""
    return [str(Path(sys.executable).with_name("kingmaker")), *arguments]


def _started(command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=_environment(),
            start_new_session=True,
        )


def _environment() -> dict[str, str]:
    """The user's, without settings that are meant for a Kingmaker of theirs."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("KINGMAKER_")}
    return {**own, **_ONE_THREAD, "PYTHONUNBUFFERED": "1"}


def _kill(group: int) -> None:
    try:
        os.killpg(group, 9)
    except ProcessLookupError:
        return
