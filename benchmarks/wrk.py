"""As many requests as somebody answers: wrk, one thread, closed loop, on the core of the load."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import msgspec

from benchmarks.cores import Busy, busy
from benchmarks.figures import Gap, MeasurementFailed
from benchmarks.processes import LOAD_CORE, pinned

_SCRIPT = Path(__file__).with_suffix(".lua")
_PATIENCE_SECONDS = 30
_ANSWER_SECONDS = 10


class _Summary(msgspec.Struct, frozen=True):
    requests: int
    seconds: float
    p50_us: int
    p99_us: int
    not_2xx: int
    broken: int
    late: int


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody answered under load, and how busy the cores were meanwhile."""

    requests: int
    rate: float
    p50_us: float
    p99_us: float
    cores: Busy


def missing(name: str) -> Gap | None:
    """The gap that a measurement has without wrk."""
    if shutil.which("wrk"):
        return None
    return Gap(name=name, why="wrk is not installed: apt-get install wrk (Debian, Ubuntu)")


def load(who: str, port: int, calls: Path, connections: int, seconds: float) -> Load:
    """Keep so many connections busy for so long.

    Raises:
        MeasurementFailed: an answer was not 2xx, or a connection broke.
    """
    command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s"]
    command += [f"--timeout={_ANSWER_SECONDS}s", "-s", str(_SCRIPT), f"http://127.0.0.1:{port}", "--"]
    with pinned(LOAD_CORE), busy() as cores:
        ran = subprocess.run(
            [*command, str(calls)], capture_output=True, check=False, timeout=seconds + _PATIENCE_SECONDS
        )
    return _load(who, _summary(who, ran), cores())


def _summary(who: str, ran: subprocess.CompletedProcess[bytes]) -> _Summary:
    try:
        return msgspec.json.decode(ran.stdout.splitlines()[-1], type=_Summary)
    except (IndexError, msgspec.MsgspecError) as error:
        said = (ran.stdout + ran.stderr).decode(errors="replace").strip()
        raise MeasurementFailed(f"{who}: wrk ended with {ran.returncode} and said: {said}") from error


def _load(who: str, found: _Summary, cores: Busy) -> Load:
    if found.not_2xx or found.broken or found.late or not found.requests:
        raise MeasurementFailed(
            f"{who}: of {found.requests} answers {found.not_2xx} were not 2xx, {found.broken} connections "
            f"broke, {found.late} answers took longer than {_ANSWER_SECONDS} s; all must be 0"
        )
    return Load(
        requests=found.requests,
        rate=found.requests / found.seconds,
        p50_us=found.p50_us,
        p99_us=found.p99_us,
        cores=cores,
    )
