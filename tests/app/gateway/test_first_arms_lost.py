"""Whatever becomes of a store of first arms, requests are answered in time, and workers agree again."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from app.gateway import first_arms
from app.gateway.decisions import Decision
from app.gateway.first_arms import Decide, FirstArms, Waiter, Waiting
from app.stores.first_arms import key_of
from routing.assignment import Plan
from routing.bucketing import unit_hash
from routing.first_arm import FirstArm, decoded, encode
from routing.types import TOTAL_BP, Arm, Reason, Role, Share
from tests.app.gateway.stage import request, until
from tests.app.gateway.sticky import UNITS, SlowStore, Sticky


async def test_no_request_waits_longer_than_its_patience(sticky: Sticky) -> None:
    """However many were before it, and however slow the store is, which is not away for that. A caller that
    has less time waits for half of it."""
    store = SlowStore(0.03)
    sticky.keep_with(store, patience_seconds=0.04)
    await sticky.up()
    started = sticky.loop.time()
    await asyncio.gather(*(sticky.ask(x_user=f"x{number}") for number in range(40)))
    assert sticky.is_up
    assert sticky.counted_as("away") > 0
    assert sticky.loop.time() - started < 5
    arms = await sticky.arms_of([f"x{number}" for number in range(40)])
    assert set(arms.values()) == {"old", "new"}
    store.seconds = 0.2
    sticky.keep_with(store, patience_seconds=5.0)
    await sticky.up()
    answer = await sticky.ask(x_user="late", kingmaker_timeout_ms="100")
    assert answer.status == 200
    assert store.answered == 0


async def test_what_the_store_cannot_say_of_one_unit_is_no_others_matter(sticky: Sticky) -> None:
    """It is by hash, and asked for again the next time; the store is not away."""
    before = await sticky.arms_of(UNITS[:2])
    sticky.keep_with(sticky.store)
    await sticky.up(9_999)
    sticky.store.refused = {key_of(1, unit_hash("salt", UNITS[1]))}
    assert await sticky.arms_of(UNITS[:1]) == {UNITS[0]: before[UNITS[0]]}
    assert (await sticky.ask(x_user=UNITS[1])).status == 200
    assert sticky.is_up
    sticky.store.refused = set()
    assert await sticky.arms_of(UNITS[:2]) == before


async def test_what_has_lapsed_elsewhere_is_not_remembered_here(sticky: Sticky) -> None:
    """An arm that lost its share and has it again: what its units got meanwhile, by any worker, is theirs."""
    other = Sticky()
    other.keep_with(sticky.store)
    await other.start()
    before = await sticky.arms_of()
    had = [unit for unit, arm in before.items() if arm == "new"]
    third = Arm(id=3, name="third", url=f"http://127.0.0.1:{sticky.champion.port}/", role=Role.CHALLENGER)
    for stage in (sticky, other):
        arms = (*stage.arms(), third)
        none = (Share(arm_id=3, start_bp=0, end_bp=5_000), Share(arm_id=1, start_bp=5_000, end_bp=TOTAL_BP))
        await stage.up(arms=arms, shares=none, epoch=4)
    meanwhile = await other.arms_of(had)
    assert "new" not in meanwhile.values()
    for stage in (sticky, other):
        some = (
            Share(arm_id=2, start_bp=0, end_bp=9_000),
            Share(arm_id=1, start_bp=9_000, end_bp=TOTAL_BP - 1),
        )
        last = Share(arm_id=3, start_bp=TOTAL_BP - 1, end_bp=TOTAL_BP)
        await stage.up(arms=(*stage.arms(), third), shares=(*some, last), epoch=5)
    assert await sticky.arms_of(had) == await other.arms_of(had) == meanwhile
    await other.stop()


async def test_what_the_store_has_lost_it_gets_back(sticky: Sticky, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a worker that still knows it, which asks now and then, without a request that waits."""
    before = await sticky.arms_of()
    held = dict(sticky.store.held)
    sticky.store.held.clear()
    await sticky.arms_of()
    assert sticky.store.held == {}
    monkeypatch.setattr(first_arms, "FRESH_SECONDS", -1.0)
    assert await sticky.arms_of() == before
    await until(lambda: sticky.store.held == held)


async def test_units_that_were_lost_are_drawn_for_by_one_worker_alone(sticky: Sticky) -> None:
    """Also where two meet the unit at once: the second is told what the first has drawn."""
    key = key_of(1, unit_hash("salt", "u1"))
    sticky.store.held[key] = encode(FirstArm(9, 1, Reason.BANDIT, 1, 5, {9: 5_000, 1: 5_000}))
    answers = await asyncio.gather(*(sticky.ask(x_user="u1") for _ in range(8)))
    kept = decoded(sticky.store.held[key])
    assert kept is not None
    assert {answer["kingmaker-arm"] for answer in answers} == {{1: "old", 2: "new"}[kept.arm_id]}


async def test_an_arm_that_is_gone_is_named_so(sticky: Sticky) -> None:
    """Of probabilities of long ago, which sum to 1 as ever."""
    key = key_of(1, unit_hash("salt", "u1"))
    sticky.store.held[key] = encode(
        FirstArm(2, 1, Reason.SPLIT, 1, 1_700_000_000_000, {1: 4_000, 2: 3_000, 9: 3_000})
    )
    await sticky.up(first_arm_ms=10**13)
    for _ in range(2):
        answer = await sticky.ask("POST", "/v1/decide/bid", msgspec.json.encode({"unit": "u1"}))
        said = msgspec.json.decode(answer.body)
        assert (said["arm"], said["probabilities"]) == ("new", {"old": 0.4, "new": 0.3, "(gone)": 0.3})


async def test_a_fault_while_it_waits_ends_the_request(
    sticky: Sticky, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for ever for an answer that will not come: of a route, of decide, of flags."""

    def fail(_: Decision) -> None:
        raise RuntimeError("a fault of ours")

    settle = FirstArms.settle

    def settled(kept: FirstArms, plan: Plan, unit: str, decide: Decide, waiter: Waiter) -> Decision | Waiting:
        return settle(kept, plan, unit, decide, waiter._replace(done=fail))

    monkeypatch.setattr(FirstArms, "settle", settled)
    asked = {
        "/r/bid": {},
        "/v1/decide/bid": {"unit": "u2"},
        "/ofrep/v1/evaluate/flags/bid": {"context": {"targetingKey": "u3"}},
        "/ofrep/v1/evaluate/flags": {"context": {"targetingKey": "u4"}},
    }
    for path, question in asked.items():
        reader, writer = await sticky.connect()
        writer.write(request("POST", path, msgspec.json.encode(question), x_user="u1"))
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    assert sticky.spool.events == []


async def test_a_store_that_is_needed_no_more_is_left_alone(sticky: Sticky) -> None:
    """Nor is its absence told of."""
    sticky.store.is_away = True
    sticky.keep_with(sticky.store)
    sticky.sticky()
    assert 'kingmaker_first_arm_store_up{worker="w0"}' in sticky.worker.dump().values
    sticky.sticky(first_arm_ms=None)
    kept = sticky.worker.first_arms
    assert kept is not None
    await until(lambda: kept._returning is not None and kept._returning.done())
    assert 'kingmaker_first_arm_store_up{worker="w0"}' not in sticky.worker.dump().values
