"""One gateway worker with everything on, as in production: a recorder takes what its spool holds."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from app.events.spool import SpoolError
from app.events.spool_reader import acknowledge, read_batch
from app.gateway.snapshots import FILE_NAME, write_snapshot
from benchmarks.figures import Gap, MeasurementFailed
from benchmarks.processes import MEASURED_CORE, Process, process, python, tail
from routing.snapshot import Snapshot

COMPILED = Path(sys.prefix, "compiled")
"""Where `make compiled` puts the gateway whose request path is compiled, as images have it."""

_RECORDER_SECONDS = 0.5
_STAT = "/proc/{pid}/stat"
_STATUS = "/proc/{pid}/status"


@dataclass(frozen=True, slots=True)
class Gateway:
    """A running worker."""

    port: int
    process: Process

    @property
    def cpu_seconds(self) -> float:
        """Processor time that all its threads have used."""
        fields = Path(_STAT.format(pid=self.process.pid)).read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def memory_mb(self) -> float:
        """Memory that is resident."""
        lines = Path(_STATUS.format(pid=self.process.pid)).read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def is_accounted() -> bool:
    """Whether this system tells what a process uses."""
    return Path("/proc/self/stat").exists()


def is_compiled() -> bool:
    """Whether there is a compiled request path to measure, no older than the sources."""
    built = COMPILED / ".built"
    sources = [file for folder in ("app", "routing") for file in Path(folder).rglob("*.py")]
    return built.exists() and all(file.stat().st_mtime <= built.stat().st_mtime for file in sources)


def missing() -> Gap | None:
    """The gap that a comparison has without the compiled request path."""
    if is_compiled():
        return None
    return Gap(name="kingmaker, compiled", why="it is not built: `make compiled`, which needs a C compiler")


@contextmanager
def gateway(
    folder: Path, snapshot: Snapshot, before: Sequence[str] = (), *, pure: bool = False
) -> Iterator[Gateway]:
    """A worker that routes by a snapshot, compiled where that was built, unless it is to be `pure` Python.

    `before`: arguments of Python in front of its own.

    Raises:
        MeasurementFailed: it does not start.
    """
    (folder / "spools").mkdir()
    write_snapshot(folder / FILE_NAME, snapshot)
    log = folder / "gateway.log"
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        command = python(*before, "-m", "app.gateway", "--data-dir", str(folder), "--worker", "w0")
        command += ["--fd", str(listener.fileno())]
        code = COMPILED if is_compiled() and not pure else None
        with process(command, MEASURED_CORE, log, (listener.fileno(),), code) as worker:
            assert worker.stdout is not None
            if worker.stdout.readline().strip() != b"ready":
                raise MeasurementFailed(f"the gateway did not start: {tail(log)}")
            with _recorder(folder / "spools" / "w0.db"), _explained(log):
                yield Gateway(listener.getsockname()[1], worker)


@contextmanager
def _explained(log: Path) -> Iterator[None]:
    """What fails while the worker runs is told with the worker's own errors, if it wrote any."""
    try:
        yield
    except MeasurementFailed as error:
        if '"level":"error"' in log.read_text(errors="replace"):
            raise MeasurementFailed(f"{error}; the gateway's log ends with: {tail(log)}") from error
        raise


@contextmanager
def _recorder(spool: Path) -> Iterator[None]:
    """Moves the spool's mark as the recorder does, so that the worker also bears what deleting costs."""
    ended = threading.Event()
    thread = threading.Thread(target=_record, args=(spool, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _record(spool: Path, ended: threading.Event) -> None:
    while not ended.wait(_RECORDER_SECONDS):
        with contextlib.suppress(SpoolError):  # it is asked again soon
            held = read_batch(spool, 0, 0)
            acknowledge(spool, held.spool_id, held.newest_seq)
