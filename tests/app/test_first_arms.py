"""Units keep their first arms over the whole way: ramps, restarts and machines; without Redis all go on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.app.product import Document, Product, Server, converted, eventually, route, units
from tests.app.stores.stage import RedisServer

USERS = units(60)


def sticky(product: Product, share: int = 5_000, **changes: Any) -> Document:
    """The route `bid`, whose users keep their first arms."""
    old, new = product.arms
    return route(old, new, share, stickiness={"mode": "first_arm"}, **changes)


async def arms_of(server: Server, users: Sequence[str] = USERS) -> dict[str, str]:
    """Which arm each user gets."""
    async with server.caller() as caller:
        return {user: await caller.arm_of(user) for user in users}


async def split(server: Server, share: int) -> None:
    """Moves the challenger's share, and waits until every worker has heard of it."""

    async def version() -> float:
        async with server.caller() as caller:
            figures = (await caller.ask("/metrics")).body.decode()
        return min(
            float(line.split()[-1])
            for line in figures.splitlines()
            if line.startswith("kingmaker_snapshot_version{")
        )

    before = await version()
    weights = {"old": 10_000 - share, "new": share}
    await server.api("PUT", "/routes/bid/split", {"weights": weights, "reason": "test"})
    await eventually(version, lambda found: found > before)


@pytest.fixture
async def arms(product: Product) -> Product:
    """A champion and a challenger."""
    await product.arm("old")
    await product.arm("new")
    return product


async def test_users_keep_their_arms_over_ramps_and_restarts(arms: Product) -> None:
    """With two workers, of which each user may meet either; who comes later is drawn by the new shares."""
    server = await arms.serve("--workers", "2", routes=[sticky(arms)])
    before = await arms_of(server)
    assert set(before.values()) == {"old", "new"}
    await split(server, 9_999)
    assert await arms_of(server) == before
    assert set((await arms_of(server, units(30, "late"))).values()) == {"new"}
    await server.stop()
    server = await arms.serve("--workers", "2")
    assert await arms_of(server) == before
    kept = list((arms.folder / "data").glob("first-arms.db*"))
    assert kept
    assert [path.stat().st_mode & 0o077 for path in kept] == [0] * len(kept)


async def test_a_dry_run_says_what_a_user_keeps(arms: Product) -> None:
    """And what it would get who was never here."""
    server = await arms.serve(routes=[sticky(arms)])
    before = await arms_of(server, ["u1"])
    await split(server, 1)

    async def steps(unit: str) -> tuple[str, Document]:
        answer = await server.api("POST", "/routes/bid/dry-run", {"unit": unit})
        return str(answer["arm"]), next(step for step in answer["steps"] if step["step"] == "first_arm")

    arm, step = await steps("u1")
    assert (arm, step["outcome"], step["arm"]) == (before["u1"], "matched", before["u1"])
    assert step["since"] is not None
    arm, step = await steps("nobody")
    assert (arm, step["outcome"], step["arm"]) == ("old", "none", None)
    await split(server, 0)
    arm, step = await steps("u1")
    assert (arm, step["outcome"]) == ("old", "lapsed")


async def test_what_a_kept_user_does_counts_where_its_arm_was_drawn(arms: Product) -> None:
    """A ramp does not mix those who were drawn before it with those who came after; each is counted once."""
    server = await arms.serve(routes=[sticky(arms)])
    async with server.caller() as caller:
        first = {user: await caller.decide(user) for user in USERS}
    await split(server, 9_999)
    async with server.caller() as caller:
        second = {user: await caller.decide(user) for user in USERS}
        await caller.report([converted(token) for _, token in second.values()])
    assert {user: arm for user, (arm, _) in first.items()} == {user: arm for user, (arm, _) in second.items()}

    async def totals() -> list[tuple[int, int]]:
        found = await server.totals()
        return sorted((total.decisions, total.n) for total in found.values())

    by_arm = sorted(2 * [arm for arm, _ in first.values()].count(name) for name in ("old", "new"))
    await eventually(totals, lambda found: found == [(count, count // 2) for count in by_arm])


async def test_gateways_of_two_machines_agree_through_redis(arms: Product, redis_server: RedisServer) -> None:
    """Whichever a user meets first. The URL of Redis, which may hold a password, is on no command line."""
    other = Product(arms.folder / "other")
    other.folder.mkdir()
    other.arms = arms.arms
    try:
        one = await arms.serve("--redis-url", redis_server.url, routes=[sticky(arms)])
        two = await other.serve("--redis-url", redis_server.url, routes=[sticky(other, 9_999)])
        before = await arms_of(one)
        assert set(before.values()) == {"old", "new"}
        assert await arms_of(two) == before
        late = await arms_of(two, units(30, "late"))
        assert set(late.values()) == {"new"}
        assert await arms_of(one, list(late)) == late
        lines = [Path(f"/proc/{worker}/cmdline") for worker in one.workers()]
        assert all(redis_server.url.encode() not in line.read_bytes() for line in lines if line.exists())
        assert not list((arms.folder / "data").glob("first-arms.db*"))
    finally:
        other.arms = []
        await other.close()


async def test_without_redis_everybody_is_answered(arms: Product, redis_server: RedisServer) -> None:
    """While it hangs, while it is gone, and at a start without it: by the hash, and kept again afterwards."""
    server = await arms.serve("--redis-url", redis_server.url, routes=[sticky(arms)])
    before = await arms_of(server)
    await server.stop()
    redis_server.stop()
    server = await arms.serve("--redis-url", redis_server.url)
    assert await arms_of(server) == before  # by the hash: the split is as it was
    redis_server.start()

    async def up() -> bool:
        async with server.caller() as caller:
            figures = (await caller.ask("/metrics")).body.decode()
        return "kingmaker_first_arm_store_up{" in figures and 'store_up{worker="w0"} 1' in figures

    await eventually(up, bool)
    await arms_of(server)
    await split(server, 9_999)
    assert await arms_of(server) == before
    with redis_server.paused():
        fresh = await arms_of(server, units(30, "later"))
    assert set(fresh.values()) == {"new"}
    await eventually(up, bool)
    assert await arms_of(server) == before
