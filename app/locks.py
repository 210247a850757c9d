"""One process per part and data folder: a second one is told so, instead of mixing its events in."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.settings import BadSettings


@contextmanager
def only_one(data_dir: Path, part: str) -> Iterator[None]:
    """Hold the lock of a part (gateway, control, worker) of a data folder; it goes with the process.

    Raises:
        BadSettings: another process holds it.
    """
    with (data_dir / f"{part}.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BadSettings(_taken(data_dir, part, lock.name)) from error
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def _taken(data_dir: Path, part: str, name: str) -> str:
    owner = Path(name).read_text().strip() or "unknown"
    return (
        f"data_dir {data_dir} is in use by another {part} (process {owner}): "
        "stop that one, or give this one its own --data-dir"
    )
