"""What people do about traffic: carried out, noted and published, or refused without a trace."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from tests.app.control.stage import Json, Stage, arm, document, faults

Do = Callable[[Stage], Awaitable[object]]


def _post(action: str, **body: Any) -> Callable[[Stage], Awaitable[httpx.Response]]:
    return lambda stage: stage.post(action, **body)


def _split(**weights: int) -> Callable[[Stage], Awaitable[httpx.Response]]:
    body = {"weights": weights, "reason": "because"}
    return lambda stage: stage.ask("PUT", "/routes/ads/split", body)


def _kill(stage: Stage) -> Awaitable[httpx.Response]:
    return stage.ask("PUT", "/routes/ads/kill-switch", {"reason": "because"})


def _release(stage: Stage) -> Awaitable[httpx.Response]:
    return stage.ask("DELETE", "/routes/ads/kill-switch", reason="because")


def _wait(stage: Stage) -> Awaitable[None]:
    return stage.wait_for_approval()


_PAUSE, _PROMOTE, _ROLL_BACK = _post("pause"), _post("promote"), _post("rollback")
_AT_START = {"old": 9_000, "new": 1_000}
_ALL_OLD, _ALL_NEW = {"old": 10_000, "new": 0}, {"old": 0, "new": 10_000}

MOVES = {
    "split": ([], _split(old=8_000, new=2_000), "split_changed", {"suspended": True}, (8_000, 2_000)),
    "split off": ([], _split(old=10_000), "split_changed", {"trials": [], "suspended": False}, (10_000, 0)),
    "start": ([_ROLL_BACK], _post("start", arm="new"), "rollout_started", {"phase": "trial"}, (9_000, 1_000)),
    "start with": ([_ROLL_BACK], _post("start", arm="new", share=1), "rollout_started", {}, (9_999, 1)),
    "promote": ([], _PROMOTE, "promoted", {"champion": "new", "previous_champion": "old"}, (0, 10_000)),
    "promote by name": ([], _post("promote", arm="new"), "promoted", {"phase": "promoted"}, (0, 10_000)),
    "roll back": ([], _ROLL_BACK, "rolled_back", {"phase": "rolled_back"}, (10_000, 0)),
    "roll back by name": ([], _post("rollback", arm="new"), "rolled_back", {"champion": "old"}, (10_000, 0)),
    "return": ([_PROMOTE], _ROLL_BACK, "rolled_back", {"champion": "old"}, (10_000, 0)),
    "pause": ([], _PAUSE, "paused", {"suspended": True, "phase": "trial"}, (9_000, 1_000)),
    "resume": ([_PAUSE], _post("resume"), "resumed", {"suspended": False}, (9_000, 1_000)),
    "approve": ([_wait], _post("approve"), "approved", {"phase": "ramping"}, (5_000, 5_000)),
    "approve last": (
        [_split(old=5_000, new=5_000), _wait],
        _post("approve", arm="new"),
        "promoted",
        {"champion": "new"},
        (0, 10_000),
    ),
    "kill": ([], _kill, "kill_switch_on", {"kill_switch": True}, (9_000, 1_000)),
    "release": ([_kill], _release, "kill_switch_off", {"kill_switch": False}, (9_000, 1_000)),
}


@pytest.mark.parametrize(("before", "move", "kind", "fields", "shares"), MOVES.values(), ids=MOVES)
async def test_every_action_is_carried_out_noted_and_published(
    ads: Stage,
    before: list[Do],
    move: Callable[[Stage], Awaitable[httpx.Response]],
    kind: str,
    fields: Json,
    shares: tuple[int, int],
) -> None:
    """The answer is the new state, one row has actor and reason, and gateways get a newer snapshot."""
    for step in before:
        await step(ads)
    rows, version = await ads.timeline(), ads.snapshot().version
    answer = await move(ads)
    assert answer.status_code == 200, answer.text
    rollout = answer.json()
    assert rollout == await ads.read("/routes/ads/rollout")
    assert rollout | fields == rollout
    assert rollout["weights"] == dict(zip(("old", "new"), shares, strict=True))
    *earlier, row = await ads.timeline()
    assert earlier == rows
    assert (row["kind"], row["actor"], row["reason"]) == (kind, "local", "because")
    assert row["weights"] == rollout["weights"]
    assert (row["champion"], row["version"]) == (rollout["champion"], rollout["version"])
    assert ads.snapshot().version == version + 1
    route = ads.published()
    assert (route.champion.name, route.kill_switch) == (rollout["champion"], rollout["kill_switch"])
    assert {found.name: route.probabilities.get(found.id, 0) for found in route.arms} == rollout["weights"]


ILLEGAL = {
    "start the champion": ([], _post("start", arm="old"), "must not be the champion"),
    "start nobody": ([], _post("start", arm="none"), "must be one of"),
    "start twice": ([], _post("start", arm="new"), "on trial already"),
    "promote the champion": ([], _post("promote", arm="old"), "is the champion already"),
    "promote nobody": ([], _post("promote", arm="none"), "must be one of"),
    "promote without a trial": ([_ROLL_BACK], _PROMOTE, "must be named"),
    "roll back nothing": ([_ROLL_BACK], _ROLL_BACK, "nothing to roll back"),
    "roll back the champion": ([], _post("rollback", arm="old"), "no champion preceded"),
    "roll back nobody": ([], _post("rollback", arm="none"), "is not on trial"),
    "pause nothing": ([_ROLL_BACK], _PAUSE, "nothing to pause"),
    "pause twice": ([_PAUSE], _PAUSE, "suspended already"),
    "resume what runs": ([], _post("resume"), "not suspended"),
    "approve nothing": ([], _post("approve"), "no step waits"),
    "approve nothing of an arm": ([], _post("approve", arm="new"), "no step waits"),
    "approve another": ([_wait], _post("approve", arm="old"), "the one that waits, 'new', got 'old'"),
}


@pytest.mark.parametrize(("before", "move", "why"), ILLEGAL.values(), ids=ILLEGAL)
async def test_an_illegal_action_is_a_conflict_and_leaves_no_trace(
    ads: Stage, before: list[Do], move: Callable[[Stage], Awaitable[httpx.Response]], why: str
) -> None:
    """409 that says why; not a row, not a version, not a byte of the snapshot changes."""
    for step in before:
        await step(ads)
    state = await ads.state()
    answer = await move(ads)
    assert answer.status_code == 409, answer.text
    assert faults(answer) == {}
    assert why in answer.json()["detail"]
    assert await ads.state() == state


@pytest.mark.parametrize(
    ("weights", "field", "message"),
    [
        ({"old": 9_999}, "weights", "must sum to 10000, got 9999"),
        ({"old": 9_999, "new": 2}, "weights", "must sum to 10000, got 10001"),
        ({"old": 10_001, "new": -1}, "weights", "must be in [0, 10000], got 10001"),
        ({"old": 9_000, "none": 1_000}, "weights", "unknown arm 'none'"),
        ({"old": "10000"}, "weights.old", "integer, got '10000'"),
        (None, "weights", "must be"),
    ],
)
async def test_a_split_that_is_not_all_traffic_is_refused(
    ads: Stage, weights: object, field: str, message: str
) -> None:
    """Nothing is repaired: 422 with bound and value, and nothing changes."""
    state = await ads.state()
    answer = await ads.ask("PUT", "/routes/ads/split", {"weights": weights})
    assert answer.status_code == 422
    assert message in faults(answer)[field]
    assert await ads.state() == state


@pytest.mark.parametrize("share", [0, 10_000, -1, 10**30, "1000", 0.5, True])
async def test_a_trial_starts_with_a_part_of_the_traffic(ads: Stage, share: object) -> None:
    """Shares outside (0, 10,000), and what is no whole number, are refused by field."""
    await ads.post("rollback")
    state = await ads.state()
    answer = await ads.post("start", arm="new", share=share)
    assert answer.status_code == 422
    assert f"got {share!r}" in faults(answer)["share"]
    assert await ads.state() == state


@pytest.mark.parametrize("action", ["start", "promote", "rollback", "approve", "pause", "resume"])
async def test_an_action_says_why(ads: Stage, action: str) -> None:
    """Without a reason, or with an empty one, nobody moves traffic."""
    state = await ads.state()
    for body in (
        {},
        {"reason": ""},
        {"reason": " \n"},
        {"reason": "x" * 501},
        {"reason": "a\x00b"},
        {"reason": None},
    ):
        answer = await ads.ask("POST", f"/routes/ads/rollout/{action}", {"arm": "new", **body})
        assert answer.status_code == 422
        assert "reason" in faults(answer)
    assert await ads.state() == state


async def test_what_stands_so_already_is_not_moved(ads: Stage) -> None:
    """The same split, and a kill switch that is on or off, are answered with 200 and change nothing."""
    for move in (_release, _split(**_AT_START)):
        state = await ads.state()
        assert (await move(ads)).status_code == 200
        assert await ads.state() == state
    await _kill(ads)
    state = await ads.state()
    assert (await ads.ask("PUT", "/routes/ads/kill-switch")).status_code == 200
    assert await ads.state() == state


async def test_a_kill_switch_needs_no_body(ads: Stage) -> None:
    """In an incident the bare call is enough; its default reason is noted."""
    assert (await ads.ask("PUT", "/routes/ads/kill-switch")).json()["kill_switch"] is True
    assert (await ads.timeline())[-1]["reason"] == "kill switch"
    assert (await ads.ask("DELETE", "/routes/ads/kill-switch")).json()["kill_switch"] is False


async def test_a_challenger_is_named_where_several_are_on_trial(ads: Stage) -> None:
    """Without a name it is a conflict; with one, the others go on where that can be."""
    await ads.ask("POST", "/routes/ads/arms", arm("third"))
    await ads.post("start", arm="third", share=500)
    assert await ads.weights() == {"old": 8_500, "new": 1_000, "third": 500}
    for action in ("promote", "rollback"):
        answer = await ads.post(action)
        assert answer.status_code == 409
        assert "2 are on trial" in answer.json()["detail"]
    rollout = (await ads.post("rollback", arm="third")).json()
    assert rollout["weights"] == {"old": 9_000, "new": 1_000, "third": 0}
    assert (await ads.timeline())[-1]["challenger"] == "third"


async def test_many_moves_at_once_lose_nothing(ads: Stage) -> None:
    """Of twenty parallel calls each success has its row and version, and the file is that of the last."""
    moves = [_split(old=9_000 - number, new=1_000 + number) for number in range(1, 15)]
    moves += [_PAUSE, _post("resume")] * 3
    async with asyncio.timeout(60):
        answers = await asyncio.gather(*(move(ads) for move in moves))
    assert {answer.status_code for answer in answers} <= {200, 409}
    done = [answer.json() for answer in answers if answer.status_code == 200]
    assert len(done) >= 14, "no split is illegal"
    rows = (await ads.timeline())[1:]
    assert [row["version"] for row in rows] == list(range(2, len(done) + 2))
    assert sorted(answer["version"] for answer in done) == [row["version"] for row in rows]
    by_version = {row["version"]: row["weights"] for row in rows}
    assert all(by_version[answer["version"]] == answer["weights"] for answer in done)
    assert ads.snapshot().version == (await ads.http.get("/readyz")).json()["snapshot"]
    assert await ads.weights() == rows[-1]["weights"]


async def test_many_who_promote_at_once_crown_one_champion_once(ads: Stage) -> None:
    """One succeeds; to the others there is nothing to promote any more."""
    answers = await asyncio.gather(*(ads.post("promote", arm="new") for _ in range(10)))
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 9
    assert [row["kind"] for row in await ads.timeline()] == ["route_created", "promoted"]


async def test_many_who_declare_at_once_make_one_route(stage: Stage) -> None:
    """One makes it, the others find it so."""
    answers = await asyncio.gather(*(stage.put(document()) for _ in range(10)))
    assert sorted(answer.status_code for answer in answers) == [200] * 9 + [201]
    assert [row["kind"] for row in await stage.timeline()] == ["route_created"]


BANDIT: Json = {"mode": "thompson", "reward": {"metric": "conversion"}}


async def test_a_bandit_takes_the_traffic_over(ads: Stage) -> None:
    """The trial ends, the weights are the champion's, and gateways have its terms, in a new epoch."""
    before = ads.published()
    answer = await ads.ask("PUT", "/routes/ads/split", {**BANDIT, "cap": {"new": 2_000}, "reason": "try it"})
    assert answer.status_code == 200, answer.text
    assert {name: answer.json()[name] for name in ("mode", "weights", "trials", "epoch")} == {
        "mode": "thompson",
        "weights": {"old": 10_000, "new": 0},
        "trials": [],
        "epoch": before.epoch + 1,
    }
    after = ads.published()
    assert after.bandit is not None
    assert (after.epoch, after.bandit.caps_bp) == (before.epoch + 1, {after.arms[1].id: 2_000})
    exported = (await ads.read("/routes/ads"))["split"]
    assert exported == {
        "mode": "thompson",
        "reward": {"metric": "conversion", "default": 0.0},
        "floor": 100,
        "cap": {"new": 2_000},
        "discount": 1.0,
        "warm_up": 20,
        "apprentice": False,
    }
    entry = (await ads.timeline())[-1]
    assert (entry["kind"], entry["reason"], entry["evidence"]) == ("split_changed", "try it", exported)


async def test_the_same_bandit_again_changes_nothing(ads: Stage) -> None:
    """And an apprentice is another: the champion alone answers."""
    await ads.ask("PUT", "/routes/ads/split", BANDIT)
    state = await ads.state()
    assert (await ads.ask("PUT", "/routes/ads/split", BANDIT)).status_code == 200
    assert await ads.state() == state
    answer = await ads.ask("PUT", "/routes/ads/split", {**BANDIT, "apprentice": True})
    assert answer.json()["mode"] == "apprentice"
    bandit = ads.published().bandit
    assert bandit is not None
    assert bandit.is_apprentice


async def test_weights_take_the_traffic_back(ads: Stage) -> None:
    """In a new epoch, also where they are those that lay under the bandit."""
    await ads.ask("PUT", "/routes/ads/split", BANDIT)
    epoch = ads.published().epoch
    answer = await ads.ask("PUT", "/routes/ads/split", {"weights": {"old": 10_000}})
    assert (answer.json()["mode"], answer.json()["epoch"]) == ("weights", epoch + 1)
    assert ads.published().bandit is None


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        ({"reward": {"metric": "profit"}}, "split.reward", "['conversion'], got 'profit'"),
        ({"cap": {"none": 500}}, "split.cap.none", "got 'none'"),
        ({"floor": 6_000}, "split.floor", "[0, 5000], got 6000"),
    ],
)
async def test_a_bandit_that_cannot_be_is_refused(ads: Stage, change: Json, field: str, message: str) -> None:
    """422 with field, bound and value, and nothing changes."""
    state = await ads.state()
    answer = await ads.ask("PUT", "/routes/ads/split", {**BANDIT, **change})
    assert answer.status_code == 422
    assert message in faults(answer)[field]
    assert await ads.state() == state


async def test_no_trial_starts_beside_a_bandit(ads: Stage) -> None:
    """The traffic is divided by what was learnt, so a challenger cannot be given a share by hand."""
    await ads.ask("PUT", "/routes/ads/split", BANDIT)
    answer = await ads.post("start", arm="new")
    assert answer.status_code == 409
    assert "split.mode must be weights to put a challenger on trial, got thompson" in answer.json()["detail"]


async def test_a_promotion_leaves_the_bandit(ads: Stage) -> None:
    """The new champion is who answers where the bandit cannot."""
    await ads.ask("PUT", "/routes/ads/split", BANDIT)
    answer = await ads.post("promote", arm="new")
    assert (answer.json()["champion"], answer.json()["mode"]) == ("new", "thompson")


async def test_arms_beside_a_bandit_must_leave_it_room(ads: Stage) -> None:
    """One more arm may make the floor too high, one less the caps too low: 422, and nothing changes."""
    await ads.ask("PUT", "/routes/ads/split", {**BANDIT, "floor": 5_000})
    state = await ads.state()
    answer = await ads.ask("POST", "/routes/ads/arms", arm("third"))
    assert answer.status_code == 422
    assert "[0, 3333], got 5000" in faults(answer)["split.floor"]
    assert await ads.state() == state
    await ads.ask("PUT", "/routes/ads/split", {**BANDIT, "cap": {"old": 9_000, "new": 9_000}})
    state = await ads.state()
    answer = await ads.ask("DELETE", "/routes/ads/arms/new")
    assert answer.status_code == 422
    assert "split.cap.new" in faults(answer)
    assert await ads.state() == state
