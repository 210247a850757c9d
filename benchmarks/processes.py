"""Starts what is measured, each on the core it is told, and stops it by its id."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from routing.snapshot import Snapshot
from routing.tokens import SigningKey
from routing.types import Arm, Match, MetricRule, Role, Route, Share, UnitKind, UnitSource

MEASURED_CORE = 0
LOAD_CORE = 1
_PATIENCE_SECONDS = 15.0


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def process(arguments: Sequence[str], core: int, **options: object) -> Iterator[subprocess.Popen[bytes]]:
    """A Python process pinned to a core (where there are two), stopped at the end."""
    command = [sys.executable, *arguments]
    started = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options)  # type: ignore[call-overload] # options are Popen's own
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(started.pid, {cores[core % len(cores)]})
    try:
        yield started
    finally:
        started.terminate()
        started.communicate(timeout=_PATIENCE_SECONDS)


@contextmanager
def endpoint() -> Iterator[int]:
    """The model endpoint; gives its port."""
    port = free_port()
    with process(["-m", "benchmarks.endpoint", str(port)], LOAD_CORE):
        wait_for(port)
        yield port


@contextmanager
def gateway(folder: Path, arms: Sequence[int]) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """One gateway worker before the endpoints on these ports; gives its port and process."""
    (folder / "spools").mkdir(exist_ok=True)
    (folder / "snapshot.json").write_bytes(msgspec.json.encode(_snapshot(arms)))
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        arguments = ["-m", "app.gateway", "--data-dir", str(folder), "--worker", "w0"]
        inherited = ["--fd", str(listener.fileno())]
        with process([*arguments, *inherited], MEASURED_CORE, pass_fds=(listener.fileno(),)) as worker:
            assert worker.stdout is not None
            assert worker.stdout.readline().strip() == b"ready"
            yield listener.getsockname()[1], worker


@contextmanager
def peer(arms: Sequence[int]) -> Iterator[int]:
    """The FastAPI and httpx proxy before the endpoints on these ports; gives its port."""
    port = free_port()
    with process(["-m", "benchmarks.peer", str(port), *map(str, arms)], MEASURED_CORE):
        wait_for(port)
        yield port


def wait_for(port: int) -> None:
    """Return once somebody accepts on a port."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError(f"nobody accepts on port {port}")


def _snapshot(ports: Sequence[int]) -> Snapshot:
    roles = [Role.CHAMPION, *[Role.CHALLENGER] * (len(ports) - 1)]
    arms = tuple(
        Arm(id=number, name=f"arm-{number}", url=f"http://127.0.0.1:{port}/score", role=role)
        for number, (port, role) in enumerate(zip(ports, roles, strict=True), 1)
    )
    route = Route(
        id=1,
        name="bench",
        match=Match(path_prefix="/r/bench"),
        arms=arms,
        shares=(Share(arm_id=1, start_bp=0, end_bp=9_000), Share(arm_id=2, start_bp=9_000, end_bp=10_000)),
        salt="1:1",
        epoch=1,
        unit=UnitSource(kind=UnitKind.HEADER, name="X-User-Id"),
        metrics=(MetricRule(name="profit", kind="continuous", window_ms=86_400_000),),
    )
    key = SigningKey(id=1, secret=b"benchmark-secret-of-32-bytes----")
    return Snapshot(version=1, created_at_ms=0, routes=(route,), keys=(key,))
