"""Where is the first arm of each unit kept? In a file of the data folder, or in Redis for many machines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

FILE_NAME = "first-arms.db"


class StoreUnavailable(Exception):
    """The store cannot be asked now."""


class Claim(NamedTuple):
    """What a unit shall keep for so long, unless it has something already.

    `lapsed`: what it had, and is not to keep any more; empty where nothing is known of it.
    """

    key: str
    value: bytes
    lapsed: bytes
    keep_ms: int


class Store(Protocol):
    """What is kept by key. Every method raises StoreUnavailable where the store cannot be asked."""

    async def claim(self, claims: Sequence[Claim]) -> list[bytes | None]:
        """What each key has from now on: its claim's value, or else what others have claimed before.

        None where it has nothing, and nothing can be kept now.
        """
        ...

    async def find(self, key: str) -> bytes | None:
        """What a key has."""
        ...

    async def probe(self) -> None:
        """Nothing, where the store can be asked."""
        ...

    async def close(self) -> None:
        """The store is asked no more."""
        ...


def key_of(route_id: int, unit_hash: int) -> str:
    """Under what a unit's first arm is kept: the hash is by the route's salt, so each trial has its own."""
    return f"{route_id}:{unit_hash:016x}"


def open_store(data_dir: Path, redis_url: str | None) -> Store:
    """The store of this installation. Nothing is connected, or opened, before it is asked."""
    if redis_url is None:
        from app.stores.first_arms_file import FileStore  # noqa: PLC0415

        return FileStore(data_dir / FILE_NAME)
    from app.stores.first_arms_redis import RedisStore  # noqa: PLC0415  # a worker without Redis does not load it

    return RedisStore(redis_url)
