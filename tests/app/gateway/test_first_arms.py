"""A unit keeps its first arm while the arm lives; a store that is away costs it that, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from app.gateway import first_arms
from app.stores.first_arms import FILE_NAME, Claim, key_of
from app.stores.first_arms_file import FileStore
from routing.bandit import BanditTerms, Learned
from routing.bucketing import unit_hash
from routing.first_arm import FirstArm, decoded, encode
from routing.types import Reason, Role
from tests.app.gateway.stage import Message, claims_of, request, until
from tests.app.gateway.sticky import UNITS, Sticky


async def test_a_ramp_moves_nobody_who_has_an_arm(sticky: Sticky) -> None:
    """Up or down: new units are drawn by the new shares, the others stay, also for a worker that is new."""
    before = await sticky.arms_of()
    assert set(before.values()) == {"old", "new"}
    for challenger_bp in (9_999, 1):
        await sticky.up(challenger_bp)
        assert await sticky.arms_of() == before
        sticky.keep_with(sticky.store)
        await sticky.up(challenger_bp)
        assert await sticky.arms_of() == before
    fresh = await sticky.arms_of([f"new{number}" for number in range(40)])
    assert set(fresh.values()) == {"old"}


async def test_a_kept_decision_has_the_first_ones_epoch_reason_and_propensity(sticky: Sticky) -> None:
    """So it is counted where its arm was drawn; the record says since when."""
    first = await sticky.ask(x_user="u1")
    await sticky.up(9_999, epoch=4)
    again = await sticky.ask(x_user="u1")
    one, two = claims_of(first), claims_of(again)
    assert (two.arm_id, two.epoch, two.propensity_bp, two.reason) == (one.arm_id, 3, 5_000, Reason.SPLIT)
    assert two.snapshot == one.snapshot + 1
    recorded = [(event.decision, event.first_at_ms) for event in sticky.spool.events]
    assert recorded == [(one, None), (two, one.at_ms)]


async def test_an_arm_without_a_share_is_kept_by_nobody(sticky: Sticky) -> None:
    """A rollback takes everybody away; who is drawn for a later trial may get another arm, and keeps that."""
    await sticky.arms_of()
    await sticky.up(0)
    answers = [await sticky.ask(x_user=unit) for unit in UNITS]
    assert {(answer["kingmaker-arm"], answer["kingmaker-reason"]) for answer in answers} == {
        ("old", "STATIC")
    }
    await sticky.up(5_000, salt="another trial")
    later = await sticky.arms_of()
    assert set(later.values()) == {"old", "new"}
    await sticky.up(9_999, salt="another trial")
    assert await sticky.arms_of() == later


async def test_a_lapsed_arm_is_replaced_for_all_workers(sticky: Sticky) -> None:
    """Under the same salt too: what the unit gets instead is what it keeps."""
    key = key_of(1, unit_hash("salt", "u1"))
    gone = FirstArm(9, 1, Reason.SPLIT, 1, 5, {9: 5_000, 1: 5_000})
    sticky.store.held[key] = encode(gone)
    arm = (await sticky.ask(x_user="u1"))["kingmaker-arm"]
    kept = decoded(sticky.store.held[key])
    assert kept is not None
    assert ({1: "old", 2: "new"}[kept.arm_id], kept.epoch) == (arm, 3)
    assert [len(batch) for batch in sticky.store.batches] == [1, 1]
    await sticky.ask(x_user="u1")
    assert len(sticky.store.batches) == 2


async def test_a_promotion_ends_what_others_had(sticky: Sticky) -> None:
    """Who had the winner has it still; the former champion keeps no more than its share."""
    before = await sticky.arms_of()
    old, new = sticky.arms()
    roles = (
        msgspec.structs.replace(old, role=Role.CHALLENGER),
        msgspec.structs.replace(new, role=Role.CHAMPION),
    )
    await sticky.up(9_999, arms=roles)
    after = await sticky.arms_of()
    assert set(before.values()) == {"old", "new"}
    assert set(after.values()) == {"new"}


async def test_what_comes_first_comes_first(sticky: Sticky) -> None:
    """A kill switch and a forced arm are not kept, and what a unit keeps waits behind them."""
    before = await sticky.arms_of(["u1"])
    await sticky.up(kill_switch=True)
    assert (await sticky.ask(x_user="u1"))["kingmaker-reason"] == "KILL_SWITCH"
    await sticky.up(allow_force=True)
    for arm in ("old", "new"):
        answer = await sticky.ask(x_user="u1", kingmaker_force_arm=arm)
        assert (answer["kingmaker-arm"], answer["kingmaker-reason"]) == (arm, "FORCED")
    assert await sticky.arms_of(["u1"]) == before
    assert len(sticky.store.held) == 1


async def test_a_request_without_a_unit_keeps_nothing(sticky: Sticky) -> None:
    """It is its own, as ever."""
    await sticky.ask()
    assert sticky.store.held == {}


async def test_those_who_come_together_are_asked_for_together(sticky: Sticky) -> None:
    """While the store is asked for some, the others gather."""
    sticky.store.gate.clear()
    asking = [asyncio.create_task(sticky.ask(x_user=unit)) for unit in UNITS]
    await until(lambda: sum(map(len, sticky.store.batches)) + sticky.waiting == len(UNITS))
    sticky.store.gate.set()
    await asyncio.gather(*asking)
    assert len(sticky.store.batches) == 2
    assert sticky.counted_as("new") == len(UNITS)


async def test_two_workers_agree_from_the_first_request(sticky: Sticky) -> None:
    """Also where a bandit draws for each decision: one of them draws, and both have it."""
    bandit = BanditTerms(learned=Learned(at_ms=0, schema=0))
    other = Sticky()
    other.keep_with(sticky.store)
    await other.start()
    for stage in (sticky, other):
        await stage.up(bandit=bandit)
    both = [await asyncio.gather(*(stage.ask(x_user=unit) for stage in (sticky, other))) for unit in UNITS]
    assert all(one["kingmaker-arm"] == two["kingmaker-arm"] for one, two in both)
    assert {answer["kingmaker-reason"] for answers in both for answer in answers} == {"BANDIT"}
    assert {one["kingmaker-arm"] for one, _ in both} == {"old", "new"}
    await other.stop()


async def test_a_bandit_that_fails_gives_nobody_what_he_had(sticky: Sticky) -> None:
    """In doubt the champion answers, with reason DEFAULT."""
    await sticky.up(bandit=BanditTerms(learned=Learned(at_ms=0, schema=0)))
    assert set((await sticky.arms_of()).values()) == {"old", "new"}
    await sticky.up(bandit=BanditTerms())
    answers = [await sticky.ask(x_user=unit) for unit in UNITS]
    assert {(answer["kingmaker-arm"], answer["kingmaker-reason"]) for answer in answers} == {
        ("old", "DEFAULT")
    }


async def test_a_store_that_is_away_leaves_the_arm_to_the_hash(sticky: Sticky) -> None:
    """From the first request that finds it so; when the store is back, arms are kept as before."""
    before = await sticky.arms_of()
    sticky.store.is_away = True
    sticky.keep_with(sticky.store)
    sticky.sticky()
    assert await sticky.arms_of() == before
    assert not sticky.is_up
    assert sticky.counted_as("away") == len(UNITS)
    sticky.store.is_away = False
    await until(lambda: sticky.is_up)
    await sticky.arms_of()
    assert sticky.counted_as("kept") == len(UNITS)


async def test_a_store_that_hangs_holds_nobody_up(sticky: Sticky, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first wait as long as the patience lasts, the others not at all, until it is back."""
    monkeypatch.setattr(first_arms, "RETRY_SECONDS", 0.05)
    sticky.keep_with(sticky.store, patience_seconds=0.05)
    await sticky.up()
    sticky.store.gate.clear()
    assert set((await sticky.arms_of()).values()) == {"old", "new"}
    assert sticky.store.held == {}
    assert sticky.counted_as("away") == len(UNITS)
    sticky.store.gate.set()
    await until(lambda: sticky.is_up)
    await sticky.arms_of()
    assert sticky.counted_as("new") == len(UNITS)


@pytest.mark.parametrize("garbage", [b"", b"{}", b'[2,1,"SPLIT",1,5,{"2":0,"1":10000}]', b"\xff"])
async def test_garbage_in_the_store_is_replaced(sticky: Sticky, garbage: bytes) -> None:
    """It is nobody's arm."""
    key = key_of(1, unit_hash("salt", "u1"))
    sticky.store.held[key] = garbage
    arm = (await sticky.ask(x_user="u1"))["kingmaker-arm"]
    kept = decoded(sticky.store.held[key])
    assert kept is not None
    assert {1: "old", 2: "new"}[kept.arm_id] == arm


async def test_a_store_that_answers_nonsense_is_as_good_as_away(sticky: Sticky) -> None:
    """Whatever it raises, or however many answers it gives."""

    async def too_few(_: Sequence[Claim]) -> list[bytes]:
        return []

    sticky.store.claim = too_few  # type: ignore[assignment, method-assign]  # a store that is not one
    assert set((await sticky.arms_of()).values()) == {"old", "new"}
    assert sticky.counted_as("away") == len(UNITS)


async def test_a_caller_that_leaves_is_waited_for_by_nobody(sticky: Sticky) -> None:
    """What was claimed for it stays; nothing is recorded, and no arm is asked."""
    sticky.limit(half_closed_seconds=0.01)
    sticky.store.gate.clear()
    reader, writer = await sticky.connect()
    writer.write(request(x_user="u1"))
    await until(lambda: len(sticky.worker._connections) == 1 and sticky.is_asking)
    writer.transport.abort()
    await until(lambda: not sticky.worker._connections)
    sticky.store.gate.set()
    await until(lambda: len(sticky.store.held) == 1)
    await asyncio.sleep(0.02)
    assert sticky.spool.events == []
    assert sticky.champion.seen + sticky.challenger.seen == []
    del reader


async def test_a_body_that_comes_meanwhile_is_passed_on_whole(sticky: Sticky) -> None:
    """Piece by piece while the store is asked, more than is held at once, and after it has answered."""
    sticky.store.gate.clear()
    body = bytes(range(256)) * 4_000
    reader, writer = await sticky.connect()
    head = request("POST", x_user="u1", content_length=str(len(body)))
    writer.write(head)
    await until(lambda: sticky.is_asking)
    half = len(body) // 2
    for start in range(0, half, 50_000):
        writer.write(body[start : min(start + 50_000, half)])
        await asyncio.sleep(0.002)
    sticky.store.gate.set()
    await asyncio.sleep(0.01)
    writer.write(body[half:])
    answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    assert b"200 OK" in answer
    seen: list[Message] = sticky.champion.seen + sticky.challenger.seen
    assert [message.body for message in seen] == [body]


async def test_requests_in_one_piece_are_answered_in_their_order(sticky: Sticky) -> None:
    """The second is not begun before the first, which waits, has its answer."""
    sticky.store.gate.clear()
    reader, writer = await sticky.connect()
    writer.write(b"".join(request(x_user=unit) for unit in ("u1", "u2", "u3")))
    await until(lambda: sticky.is_asking)
    sticky.store.gate.set()
    tokens = []
    for _ in range(3):
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        tokens.append(head)
        await reader.readexactly(2)
    hashes = [event.decision.unit_hash for event in sticky.spool.events]
    assert hashes == [unit_hash("salt", unit) for unit in ("u1", "u2", "u3")]


async def test_decide_and_flags_keep_the_same_arm(sticky: Sticky) -> None:
    """Whoever asks first, and by which call, all the flags at once included."""
    for unit in UNITS[:10]:
        asked = msgspec.json.encode({"unit": unit})
        flagged = msgspec.json.encode({"context": {"targetingKey": unit}})
        decided = msgspec.json.decode((await sticky.ask("POST", "/v1/decide/bid", asked)).body)
        await sticky.up(9_999, epoch=sticky.version)
        flag = msgspec.json.decode((await sticky.ask("POST", "/ofrep/v1/evaluate/flags/bid", flagged)).body)
        flags = msgspec.json.decode((await sticky.ask("POST", "/ofrep/v1/evaluate/flags", flagged)).body)
        proxied = await sticky.ask(x_user=unit)
        assert {decided["arm"], flag["value"], flags["flags"][0]["value"], proxied["kingmaker-arm"]} == {
            decided["arm"]
        }
        await sticky.up(5_000, epoch=sticky.version)
    assert decided["probabilities"] == {"old": 0.5, "new": 0.5}
    assert len(sticky.store.held) == 10


async def test_all_flags_have_one_tag_while_units_keep_their_arms(sticky: Sticky) -> None:
    """Also where a bandit drew the arm, and from the first answer on."""
    await sticky.up(bandit=BanditTerms(learned=Learned(at_ms=0, schema=0)))
    body = msgspec.json.encode({"context": {"targetingKey": "u1"}})
    first = await sticky.ask("POST", "/ofrep/v1/evaluate/flags", body)
    tag = first["etag"]
    assert tag is not None
    again = await sticky.ask("POST", "/ofrep/v1/evaluate/flags", body, if_none_match=tag)
    assert again.status == 304


async def test_who_leaves_before_a_decision_gets_none_recorded(sticky: Sticky) -> None:
    """Of decide as of flags: nobody has seen it."""
    sticky.limit(half_closed_seconds=0.01)
    asked = {
        "/v1/decide/bid": {"unit": "u1"},
        "/ofrep/v1/evaluate/flags/bid": {"context": {"targetingKey": "u2"}},
        "/ofrep/v1/evaluate/flags": {"context": {"targetingKey": "u3"}},
    }
    for path, question in asked.items():
        sticky.store.gate.clear()
        _, writer = await sticky.connect()
        writer.write(request("POST", path, msgspec.json.encode(question)))
        await until(lambda: sticky.is_asking)
        writer.transport.abort()
        await until(lambda: not sticky.worker._connections)
        sticky.store.gate.set()
        await asyncio.sleep(0.02)
    assert sticky.spool.events == []


async def test_what_is_over_is_not_kept(sticky: Sticky) -> None:
    """A worker that remembers an arm for longer than the route says asks the store again."""
    await sticky.up(first_arm_ms=50)
    await sticky.arms_of(["u1"])
    assert len(sticky.store.batches) == 1
    await sticky.arms_of(["u1"])
    assert len(sticky.store.batches) == 1
    await asyncio.sleep(0.06)
    await sticky.arms_of(["u1"])
    assert len(sticky.store.batches) == 2


async def test_a_worker_remembers_so_many_and_no_more(
    sticky: Sticky, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest is asked for again."""
    monkeypatch.setattr(first_arms, "KNOWN", 2)
    for unit in ("u1", "u2", "u3", "u2", "u3", "u1"):
        await sticky.ask(x_user=unit)
    assert [len(batch) for batch in sticky.store.batches] == [1, 1, 1, 1]
    assert sticky.counted_as("kept") == 1


async def test_without_a_store_the_arm_is_by_the_hash(sticky: Sticky) -> None:
    """As if nothing were kept."""
    before = await sticky.arms_of()
    sticky.worker.first_arms, kept = None, sticky.worker.first_arms
    sticky.sticky()
    assert await sticky.arms_of() == before
    sticky.worker.first_arms = kept


async def test_a_route_that_keeps_nothing_asks_no_store(sticky: Sticky) -> None:
    """Nor is one opened for it."""
    sticky.keep_with(sticky.store)
    sticky.store.is_away = True
    await sticky.up(first_arm_ms=None)
    await sticky.arms_of()
    assert sticky.store.batches == []
    assert sticky.worker.first_arms is not None
    assert sticky.worker.first_arms._returning is None


async def test_a_file_keeps_arms_over_a_restart(sticky: Sticky, tmp_path: Path) -> None:
    """Two workers of one machine share it, and a third that comes later."""
    stores = [FileStore(tmp_path / FILE_NAME) for _ in range(3)]
    seen = []
    for store, challenger_bp in zip(stores, (5_000, 9_999, 1), strict=True):
        sticky.keep_with(store)
        await sticky.up(challenger_bp)
        seen.append(await sticky.arms_of())
    assert seen[0] == seen[1] == seen[2]
    for store in stores:
        await store.close()
    sticky.keep_with(sticky.store)
