"""Starts what is measured and what measures, each on its own core, and stops it by its id."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.figures import MeasurementFailed

MEASURED_CORE = 0
LOAD_CORE = 1
_PATIENCE_SECONDS = 60.0
_LOG_TAIL = 1_000
_PINS = hasattr(os, "sched_setaffinity")
_CORES = sorted(os.sched_getaffinity(0)) if _PINS else []

Process = subprocess.Popen[bytes]


def core(number: int) -> int | None:
    """The machine's number of our core 0 or 1; None where processes cannot be pinned."""
    return _CORES[number % len(_CORES)] if _CORES else None


def python(*arguments: str) -> list[str]:
    """The command that runs this Python with these arguments."""
    return [sys.executable, *arguments]


@contextmanager
def process(
    command: Sequence[str], on: int, log: Path, descriptors: Sequence[int] = (), folder: Path | None = None
) -> Iterator[Process]:
    """A process on one core, and so are its threads and children; its standard error goes to `log`.

    It runs in `folder`, from which Python takes its modules first.
    """
    with pinned(on), log.open("ab") as errors:
        started = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            pass_fds=descriptors,
            cwd=folder,
        )
    try:
        yield started
    finally:
        started.terminate()
        try:
            started.communicate(timeout=_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            started.kill()
            started.communicate()


def keep_off_measured_core() -> None:
    """From now on this process, which has little to do, does it on the core of the load."""
    number = core(LOAD_CORE)
    if number is not None:
        os.sched_setaffinity(0, {number})


@contextmanager
def pinned(on: int) -> Iterator[None]:
    """What is started in here inherits one core: nothing runs elsewhere first."""
    number = core(on)
    if number is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {number})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int, of: Process, log: Path) -> None:
    """Return once somebody accepts on a port.

    Raises:
        MeasurementFailed: the process has ended, or nobody accepts in time.
    """
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline and of.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise MeasurementFailed(f"nobody accepts on port {port}; {log.name} ends with: {tail(log)}")


def tail(log: Path) -> str:
    """The end of what a process wrote to its log."""
    return log.read_text(errors="replace")[-_LOG_TAIL:].strip() or "nothing"
