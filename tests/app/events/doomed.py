"""A worker's spool in a process of its own: one that is to be killed, and one whose disk is full."""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from queue import SimpleQueue
from threading import BoundedSemaphore

from app.events.spool import Spool, SpoolError
from app.events.types import OutcomeEvent
from tests.app.events.facts import claims, made, told

DISK_BYTES = 300_000
DECISIONS = 200
_IN_FLIGHT = 50


def outcome(number: int) -> OutcomeEvent:
    """An outcome that can be told from the others by its value."""
    return told(claims(number), "profit", float(number))


def write_for_ever(path: Path) -> None:
    """Writes decisions and outcomes until it is killed; prints an outcome's number once it is durable."""
    spool = Spool(path)
    waiting = BoundedSemaphore(_IN_FLIGHT)

    def done(number: int, error: SpoolError | None) -> None:
        print(number if error is None else error, flush=True)
        waiting.release()

    for number in range(10**9):
        waiting.acquire()
        spool.append(made(claims(number)))
        spool.commit([outcome(number)], lambda error, number=number: done(number, error))  # type: ignore[misc]


def write_on_full_disk(path: Path) -> None:
    """Writes until the disk is full, goes on, and once more when there is room; prints what happened."""
    spool = Spool(path)
    answers: SimpleQueue[SpoolError | None] = SimpleQueue()
    report: dict[str, object] = {}
    resource.setrlimit(resource.RLIMIT_FSIZE, (DISK_BYTES, resource.RLIM_INFINITY))
    durable = 0
    while True:
        spool.commit([outcome(durable)] * 10, answers.put)
        if (refused := answers.get(timeout=10)) is not None:
            break
        durable += 1
    for number in range(DECISIONS):
        spool.append(made(claims(number)))
    spool.commit([outcome(-1)] * DECISIONS, answers.put)
    report |= {"durable": durable, "refused": [str(refused), str(answers.get(timeout=10))]}
    report["dropped"] = spool.dropped
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    spool.commit([outcome(durable)] * 10, answers.put)
    report["after"] = answers.get(timeout=10)
    spool.close()
    print(json.dumps(report))


if __name__ == "__main__":
    {"for_ever": write_for_ever, "full_disk": write_on_full_disk}[sys.argv[1]](Path(sys.argv[2]))
