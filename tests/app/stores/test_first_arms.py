"""Whoever claims first has it, in a file as in Redis, and what cannot be asked says so."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, closing
from pathlib import Path

import pytest

from app.stores.first_arms import FILE_NAME, Claim, Store, StoreUnavailable, key_of, open_store
from app.stores.first_arms_file import FileStore
from app.stores.first_arms_redis import RedisStore
from tests.app.stores.stage import RedisServer

HOUR_MS = 3_600_000


def claim(key: str, value: bytes, lapsed: bytes = b"", keep_ms: int = HOUR_MS) -> Claim:
    """A claim for an hour."""
    return Claim(key, value, lapsed, keep_ms)


Opened = Callable[[], Store]


@pytest.fixture(params=["file", "redis"])
async def opened(
    request: pytest.FixtureRequest, tmp_path: Path, redis_server: RedisServer
) -> AsyncIterator[Opened]:
    """Opens the same store once more, as another process would."""
    url = redis_server.url if request.param == "redis" else None
    async with AsyncExitStack() as stack:

        def open_one() -> Store:
            store = open_store(tmp_path, url)
            stack.push_async_callback(store.close)
            return store

        yield open_one


async def test_the_first_claim_stands(opened: Opened) -> None:
    """Whoever comes later is told what the unit has, in this process as in another."""
    one, other = opened(), opened()
    assert await one.claim([claim("a", b"1"), claim("b", b"2")]) == [b"1", b"2"]
    assert await other.claim([claim("b", b"3"), claim("a", b"4"), claim("c", b"5")]) == [b"2", b"1", b"5"]
    assert [await one.find(key) for key in "abcd"] == [b"1", b"2", b"5", None]


async def test_one_key_twice_in_a_batch_is_claimed_once(opened: Opened) -> None:
    """The first of the two has it."""
    assert await opened().claim([claim("a", b"1"), claim("a", b"2")]) == [b"1", b"1"]


async def test_many_at_once_agree(opened: Opened) -> None:
    """Of eight who claim the same hundred keys at once, for each key one wins, and all know which."""
    stores = [opened() for _ in range(8)]
    keys = [str(number) for number in range(100)]
    told = await asyncio.gather(
        *(store.claim([claim(key, b"%d" % place) for key in keys]) for place, store in enumerate(stores))
    )
    assert all(answer == told[0] for answer in told)


async def test_what_has_lapsed_is_replaced_once(opened: Opened) -> None:
    """By whoever says first what it was; who saw something else than is there is told what is there."""
    store = opened()
    await store.claim([claim("a", b"old")])
    assert await store.claim([claim("a", b"new", lapsed=b"older")]) == [b"old"]
    assert await store.claim([claim("a", b"new", lapsed=b"old")]) == [b"new"]
    assert await store.claim([claim("a", b"newer", lapsed=b"old")]) == [b"new"]


async def test_it_is_kept_for_its_time_and_no_longer(opened: Opened) -> None:
    """Then the next claim stands; asking does not make it last."""
    store = opened()
    await store.claim([claim("a", b"1", keep_ms=150), claim("b", b"1")])
    assert await store.find("a") == b"1"
    await asyncio.sleep(0.2)
    assert await store.find("a") is None
    assert await store.claim([claim("a", b"2"), claim("b", b"2")]) == [b"2", b"1"]


async def test_a_probe_says_nothing_of_a_store_that_answers(opened: Opened) -> None:
    """Not even of one that nobody has used yet."""
    await opened().probe()


def test_a_key_is_of_one_route_and_unit() -> None:
    """The hash is by a salt of the route's trial, so another trial has other keys."""
    assert key_of(7, 0xABC) == "7:0000000000000abc"
    assert len({key_of(1, 11), key_of(11, 1), key_of(1, 1)}) == 3


async def test_a_redis_that_is_away_says_so_and_comes_back(redis_server: RedisServer) -> None:
    """Each call is an error of ours, and the same store can be asked when it is back."""
    store = RedisStore(redis_server.url)
    await store.claim([claim("a", b"1")])
    redis_server.stop()
    for call in (store.probe, lambda: store.find("a"), lambda: store.claim([claim("a", b"1")])):
        with pytest.raises(StoreUnavailable, match="Redis cannot be asked"):
            await call()
    redis_server.start()
    await store.probe()
    assert await store.claim([claim("a", b"2")]) == [b"2"]
    await store.close()


async def test_a_redis_that_hangs_is_left_when_the_caller_has_no_more_time(redis_server: RedisServer) -> None:
    """And what it answers later is nobody else's answer."""
    store = RedisStore(redis_server.url)
    await store.claim([claim("a", b"1"), claim("b", b"2")])
    with redis_server.paused(), pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await store.find("a")
    assert await store.find("b") == b"2"
    await store.close()


async def test_a_file_that_is_damaged_says_so_and_can_be_replaced(tmp_path: Path) -> None:
    """Without a restart: the next to ask opens what is there then."""
    store = FileStore(tmp_path / FILE_NAME)
    (tmp_path / FILE_NAME).write_bytes(b"no database" * 500)
    with pytest.raises(StoreUnavailable, match=r"first-arms\.db cannot be used"):
        await store.probe()
    (tmp_path / FILE_NAME).unlink()
    assert await store.claim([claim("a", b"1")]) == [b"1"]
    await store.close()


async def test_what_is_over_is_deleted_faster_than_it_comes(tmp_path: Path) -> None:
    """With each claim up to two rows, so that there are never many more than live."""
    store = FileStore(tmp_path / FILE_NAME)
    await store.claim([claim(str(number), b"1", keep_ms=1) for number in range(5)])
    await asyncio.sleep(0.01)
    left = []
    for key in "abc":
        await store.claim([claim(key, b"1")])
        with closing(sqlite3.connect(tmp_path / FILE_NAME)) as connection:
            left.append(connection.execute("SELECT count(*) FROM first_arms").fetchone()[0])
    assert left == [5 + 1 - 2, 5 + 2 - 4, 3]
    await store.close()


async def test_a_file_that_cannot_be_written_still_tells_what_it_has(tmp_path: Path) -> None:
    """While somebody else holds it: of what is new it says nothing, and is not away for that."""
    store = FileStore(tmp_path / FILE_NAME)
    await store.claim([claim("a", b"1")])
    with closing(sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert await store.claim([claim("b", b"2"), claim("a", b"3")]) == [None, b"1"]
        other.execute("ROLLBACK")
    assert await store.claim([claim("b", b"2")]) == [b"2"]
    await store.close()


async def test_looking_does_not_make_a_file(tmp_path: Path) -> None:
    """A control plane of its own has none to look into, and says so."""
    store = FileStore(tmp_path / FILE_NAME)
    with pytest.raises(StoreUnavailable, match=r"first-arms\.db is not there"):
        await store.find("a")
    assert not (tmp_path / FILE_NAME).exists()
    await store.close()


async def test_a_redis_that_is_full_still_tells_what_it_has(redis_server: RedisServer) -> None:
    """What cannot be kept is nothing, and the others of the batch are told."""
    store = RedisStore(redis_server.url)
    await store.claim([claim("a", b"1")])
    await store._redis.config_set("maxmemory", 1)
    assert await store.claim([claim("b", b"2"), claim("a", b"3")]) == [None, b"1"]
    await store._redis.config_set("maxmemory", 0)
    assert await store.claim([claim("b", b"2")]) == [b"2"]
    await store.close()


async def test_a_connection_that_redis_has_closed_is_made_anew(redis_server: RedisServer) -> None:
    """As servers and networks close those that are idle; the caller hears nothing of it."""
    store = RedisStore(redis_server.url)
    await store.claim([claim("a", b"1")])
    redis_server.stop()
    redis_server.start()
    assert await store.claim([claim("a", b"2")]) == [b"2"]
    await store.close()
