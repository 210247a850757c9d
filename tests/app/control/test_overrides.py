"""Overrides are made, listed and ended; each change is on the timeline, and gateways have it at once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from app.control import overrides
from app.control.overrides import override_view
from app.db import overrides as overrides_db
from app.db.errors import Conflict
from app.db.overrides import HOUR_MS, StoredOverride, live_overrides, note_matches
from app.db.routes import load_route, update_arm
from app.jobs.expire import expire
from policies.spec import ArmSpec
from routing.rules import Condition, Op, Override
from routing.types import Role
from tests.app.control.stage import Json, Stage, arm, document, faults

NOW = datetime.now(UTC)
SOON = (NOW + timedelta(hours=1)).isoformat()
UNIT = {"attribute": "unit", "op": "in", "values": ["u1", "u2"]}
COUNTRY = {"name": "country", "from": {"header": "X-Country"}, "type": "id"}


def wanted(**changes: object) -> Json:
    """An override that pins two users to the challenger."""
    return {"arm": "new", "when": [UNIT], "reason": "they asked for it", **changes}


REFUSED: list[tuple[Json, str, str]] = [
    (
        {"arm": "third"},
        "arm",
        "must be an arm of route 'ads' that answers callers (old, new), got 'third'",
    ),
    ({"arm": "dark"}, "arm", "answers callers (old, new), got 'dark'"),
    ({"share": 0}, "share", "must be in [1, 10000], got 0"),
    ({"share": 10_001}, "share", "must be in [1, 10000], got 10001"),
    ({"share": 0.5}, "share", "valid integer, got 0.5"),
    ({"priority": -1}, "priority", "must be in [0, 1000000], got -1"),
    ({"expires_at": "2025-01-01T00:00:00Z"}, "expires_at", "must be later than now"),
    ({"expires_at": "2999-01-01T00:00:00"}, "expires_at", "must carry its time zone"),
    ({"expires_at": 32_503_680_000}, "expires_at", "must be a time such as 2026-01-31T12:00:00Z"),
    (
        {"expires_at": "tomorrow"},
        "expires_at",
        "must be a time such as 2026-01-31T12:00:00Z, got 'tomorrow'",
    ),
    ({"reason": ""}, "reason", "at least 1 character"),
    ({"reason": " \t "}, "reason", "must hold something besides spaces"),
    ({"reason": None}, "reason", "valid string"),
    ({"until": SOON}, "until", "is not a known field"),
    ({"when": [UNIT] * 17}, "when", "must hold at most 16 conditions, got 17"),
    (
        {"when": [{**UNIT, "attribute": "age"}]},
        "when.0.attribute",
        "header.NAME or context.NAME, got 'age'",
    ),
    (
        {"when": [UNIT, {**UNIT, "attribute": "context.hour"}]},
        "when.1.attribute",
        "must name a feature that route 'ads' declares (country), got 'context.hour'",
    ),
    ({"when": [{**UNIT, "op": "like"}]}, "when.0.op", "got 'like'"),
    ({"when": [{**UNIT, "values": [None]}]}, "when.0.values.0", "must be text, a finite number"),
    ({"when": [{**UNIT, "values": []}]}, "when.0.values", "must hold 1 to 10000 for in, got 0"),
    (
        {"when": [{"attribute": "path", "op": "matches", "values": ["("]}]},
        "when.0.values",
        "for matches, got '('",
    ),
]


async def made(stage: Stage, **changes: object) -> Json:
    """Makes an override, which must succeed; gives what is answered."""
    answer = await stage.ask("POST", "/routes/ads/overrides", wanted(**changes))
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def listed(stage: Stage) -> list[Json]:
    """The route's overrides."""
    found: list[Json] = (await stage.read("/routes/ads/overrides"))["overrides"]
    return found


async def test_a_new_override_reaches_gateways_and_the_timeline(ads: Stage) -> None:
    """201 with all of it and its id; gateways have it, and the timeline says who, why, and all of it."""
    answer = await made(ads, share=5_000, priority=7, expires_at=SOON)
    expires_at = datetime.fromisoformat(answer.pop("expires_at"))
    assert abs(expires_at - (NOW + timedelta(hours=1))) < timedelta(milliseconds=1)
    assert datetime.fromisoformat(answer.pop("created_at")) >= NOW.replace(microsecond=0)
    assert answer == {
        "id": 1,
        "arm": "new",
        "when": [UNIT],
        "share": 5_000,
        "priority": 7,
        "author": "local",
        "reason": "they asked for it",
        "state": "active",
        "matched": {"last_hour": 0, "last_day": 0, "last_at": None},
    }
    (published,) = ads.published().overrides
    assert published == Override(
        id=1,
        arm_id=ads.published().arms[1].id,
        when=(Condition(attribute="unit", op=Op.IN, values=("u1", "u2")),),
        share_bp=5_000,
        priority=7,
        expires_at_ms=round(expires_at.timestamp() * 1000),
    )
    row = (await ads.timeline())[-1]
    shown = (row["kind"], row["actor"], row["reason"], row["challenger"])
    assert shown == ("override_added", "local", "they asked for it", "new")
    evidence = row["evidence"]
    assert (evidence["id"], evidence["arm"], evidence["when"]) == (1, "new", [UNIT])
    assert (evidence["share_bp"], evidence["priority"]) == (5_000, 7)
    assert evidence["expires_at_ms"] == published.expires_at_ms


async def test_what_is_left_out_has_a_default(ads: Stage) -> None:
    """Everybody, all of them, at priority 100, for good; the author is the key's name."""
    key = await ads.make_key("operator", "bob")
    answer = await ads.ask("POST", "/routes/ads/overrides", {"arm": "old", "reason": "because"}, key)
    made = answer.json()
    assert (made["when"], made["share"], made["priority"], made["expires_at"]) == ([], 10_000, 100, None)
    assert made["author"] == "bob"
    (published,) = ads.published().overrides
    assert (published.when, published.expires_at_ms) == ((), None)


async def test_they_are_listed_in_their_order_of_precedence(ads: Stage) -> None:
    """The highest priority first, of equals the oldest."""
    for priority in (100, 5, 100, 1_000_000):
        await made(ads, priority=priority)
    assert [(each["id"], each["priority"]) for each in await listed(ads)] == [
        (4, 1_000_000),
        (1, 100),
        (3, 100),
        (2, 5),
    ]


async def test_an_override_that_is_removed_is_gone(ads: Stage) -> None:
    """204; gateways lose it, the timeline has the whole of it and why, and its id is used no more."""
    await made(ads)
    await made(ads, arm="old")
    answer = await ads.ask("DELETE", "/routes/ads/overrides/2", reason="a mistake")
    assert (answer.status_code, answer.content) == (204, b"")
    assert [override.id for override in ads.published().overrides] == [1]
    assert [each["id"] for each in await listed(ads)] == [1]
    row = (await ads.timeline())[-1]
    assert (row["kind"], row["actor"], row["reason"]) == ("override_removed", "local", "a mistake")
    assert (row["evidence"]["id"], row["evidence"]["reason"]) == (2, "they asked for it")
    again = await ads.ask("DELETE", "/routes/ads/overrides/2", reason="a mistake")
    assert again.status_code == 404
    assert "2" in again.json()["detail"]
    assert (await made(ads))["id"] == 3


async def test_a_reason_to_remove_one_stands_in_the_query(ads: Stage) -> None:
    """Whoever leaves it out, or sends a body, is told so; spaces are none."""
    await made(ads)
    missing = await ads.ask("DELETE", "/routes/ads/overrides/1", {"reason": "a mistake"})
    assert missing.status_code == 422
    assert faults(missing) == {"reason": "is required: send it as a query parameter, as in ?reason=…"}
    blank = await ads.ask("DELETE", "/routes/ads/overrides/1", reason="  ")
    assert faults(blank) == {"reason": "must hold something besides spaces, got '  '"}
    assert len(await listed(ads)) == 1


async def test_an_override_that_cannot_be_is_refused_by_field(stage: Stage) -> None:
    """422 with field, bound and value; nothing changes."""
    dark = arm("dark", role="shadow")
    await stage.put(document(arms=[arm("old", role="champion"), arm("new"), dark], context=[COUNTRY]))
    before = await stage.state()
    for changes, field, message in REFUSED:
        answer = await stage.ask("POST", "/routes/ads/overrides", wanted(**changes))
        assert answer.status_code == 422, changes
        assert message in faults(answer)[field], changes
    assert await stage.state() == before


async def test_everything_wrong_is_said_at_once(ads: Stage) -> None:
    """What the pure part refuses, and what this route has not."""
    condition = {"attribute": "context.hour", "op": "lt", "values": ["x"]}
    body = wanted(arm="third", when=[condition], share=0, expires_at="2025-01-01T00:00:00Z")
    answer = await ads.ask("POST", "/routes/ads/overrides", body)
    assert set(faults(answer)) == {"arm", "when.0.attribute", "when.0.values", "share", "expires_at"}


async def test_a_removal_needs_a_reason(ads: Stage) -> None:
    """422 without one; nothing changes."""
    await made(ads)
    before = await ads.state()
    answer = await ads.ask("DELETE", "/routes/ads/overrides/1")
    assert faults(answer) == {"reason": "is required: send it as a query parameter, as in ?reason=…"}
    assert await ads.state() == before


async def test_a_route_has_only_so_many(ads: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond two thousand (here two) there is no room; one that ends makes some."""
    monkeypatch.setattr(overrides, "MOST_OVERRIDES", 2)
    await made(ads)
    await made(ads)
    answer = await ads.ask("POST", "/routes/ads/overrides", wanted())
    assert faults(answer) == {"overrides": "must be at most 2 of a route, got 3: remove some first"}
    await ads.ask("DELETE", "/routes/ads/overrides/1", reason="room")
    await made(ads)


async def test_their_conditions_have_only_so_much_room(ads: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """All those of a route together: workers hold them in memory."""
    monkeypatch.setattr(overrides, "MOST_CHARACTERS", 300)
    await made(ads)
    answer = await ads.ask("POST", "/routes/ads/overrides", wanted(when=[{**UNIT, "values": ["x" * 250]}]))
    assert (
        "must come to at most 300 characters with those of the route's other overrides"
        in faults(answer)["when"]
    )


async def test_an_override_has_only_so_much_room(ads: Stage) -> None:
    """As all of it is on the timeline each time: 10,000 of the usual ids fit, half as long again do not."""
    ids = [str(UUID(int=number)) for number in range(10_000)]
    await made(ads, when=[{**UNIT, "values": ids}])
    assert (await ads.timeline())[-1]["evidence"]["when"][0]["values"] == ids
    before = await ads.state()
    body = wanted(when=[{**UNIT, "values": [f"{each}-{each[:18]}" for each in ids]}])
    answer = await ads.ask("POST", "/routes/ads/overrides", body)
    assert faults(answer) == {"when": "must come to at most 524288 bytes as JSON, got 580084"}
    assert await ads.state() == before


async def test_a_route_has_only_so_many_expressions(ads: Stage) -> None:
    """Each condition with one counts, wherever it stands; an override without any is taken all the same."""

    def matching(count: int) -> list[Json]:
        return [{"attribute": "unit", "op": "matches", "values": [f"^u{each}"]} for each in range(count)]

    for _ in range(6):
        await made(ads, when=matching(16))
    await made(ads, when=[UNIT, *matching(3)])
    answer = await ads.ask("POST", "/routes/ads/overrides", wanted(when=matching(2)))
    bound = "must hold at most 100 conditions with matches with those of the route's other overrides, got 101"
    assert faults(answer) == {"when": f"{bound}: remove some first"}
    await made(ads, when=matching(1))
    await made(ads)
    await ads.ask("DELETE", "/routes/ads/overrides/1", reason="room")
    await made(ads, when=matching(16))


async def test_a_route_has_only_so_large_expressions(ads: Stage) -> None:
    """What they compile to adds up, as does what they cost a request; others are taken all the same."""

    def slow(number: int) -> list[Json]:
        return [{"attribute": "unit", "op": "matches", "values": [f"a[ab]{{149}}c{number}"]}]

    taken = 0
    while (answer := await ads.ask("POST", "/routes/ads/overrides", wanted(when=slow(taken)))).is_success:
        taken += 1
    assert 20 < taken < 50
    said = faults(answer)["when"]
    assert said.startswith("must hold expressions of at most 5000 instructions of RE2 with those of")
    assert said.endswith("make them shorter, or remove some")
    await made(ads)


async def test_an_old_version_makes_and_removes_none(ads: Stage) -> None:
    """If-Match guards overrides too: 412, and nothing changes."""
    await made(ads)
    before = await ads.state()
    stale = {"If-Match": '"1"'}
    at = "/v1/routes/ads/overrides"
    for answer in (
        await ads.http.post(at, json=wanted(), headers=stale),
        await ads.http.delete(f"{at}/1?reason=because", headers=stale),
    ):
        assert answer.status_code == 412
    assert await ads.state() == before
    assert (await ads.http.post(at, json=wanted(), headers={"If-Match": '"2"'})).status_code == 201


async def test_what_they_have_pinned_lately_is_shown(ads: Stage) -> None:
    """By whole hours of the clock, so that 0 means: surely none."""
    await made(ads)
    now_ms = round(datetime.now(UTC).timestamp() * 1000)
    ago = (0, 0, HOUR_MS, 5 * HOUR_MS, 24 * HOUR_MS, 40 * HOUR_MS)
    async with ads.database.transaction() as connection:
        await note_matches(connection, [(1, now_ms - each) for each in ago])
    matched = (await listed(ads))[0]["matched"]
    assert (matched["last_hour"], matched["last_day"]) == (3, 5)
    assert round(datetime.fromisoformat(matched["last_at"]).timestamp() * 1000) == now_ms


async def test_one_that_has_expired_says_so_until_it_is_noted(ads: Stage) -> None:
    """It is listed as expired, and can still be removed; once the timeline has it, it is listed no more."""
    for _ in range(2):
        await made(ads, expires_at=SOON)
    later_ms = round((NOW + timedelta(hours=2)).timestamp() * 1000)
    async with ads.database.read() as connection:
        route = await load_route(connection, "ads")
        found = await live_overrides(connection, route.id)
    assert [override_view(each, route, later_ms).state for each in found] == ["expired", "expired"]
    assert (await ads.ask("DELETE", "/routes/ads/overrides/1", reason="late")).status_code == 204
    await expire(ads.database, later_ms)
    assert await listed(ads) == []
    assert [row["kind"] for row in (await ads.timeline())[-2:]] == ["override_removed", "override_expired"]


async def test_one_whose_arm_serves_nobody_says_so(ads: Stage) -> None:
    """However that came about; gateways do not get it, and nothing else stands in its way."""
    await made(ads)
    async with ads.database.transaction() as connection:
        route = await load_route(connection, "ads")
        dark = ArmSpec("new", "http://127.0.0.1:9000/new", Role.SHADOW)
        await update_arm(connection, route.arm_ids["new"], dark)
    await made(ads, arm="old")
    assert [(each["id"], each["state"]) for each in await listed(ads)] == [
        (1, "arm_not_serving"),
        (2, "active"),
    ]
    assert [override.id for override in ads.published().overrides] == [2]


async def test_there_is_no_such_route(stage: Stage) -> None:
    """404, whatever is asked of it."""
    for answer in (
        await stage.ask("POST", "/routes/none/overrides", wanted()),
        await stage.ask("GET", "/routes/none/overrides"),
        await stage.ask("DELETE", "/routes/none/overrides/1", reason="because"),
    ):
        assert answer.status_code == 404


async def test_another_route_removes_none(ads: Stage) -> None:
    """An id belongs to its route."""
    await made(ads)
    await ads.put(document("other"))
    assert (await ads.ask("DELETE", "/routes/other/overrides/1", reason="because")).status_code == 404
    assert len(await listed(ads)) == 1


async def test_viewers_see_and_operators_change(ads: Stage) -> None:
    """Whoever may only look is refused with 403."""
    await made(ads)
    viewer, operator = await ads.make_key("viewer"), await ads.make_key("operator")
    assert (await ads.ask("GET", "/routes/ads/overrides", key=viewer)).status_code == 200
    assert (await ads.ask("POST", "/routes/ads/overrides", wanted(), viewer)).status_code == 403
    removal = ("DELETE", "/routes/ads/overrides/1", None)
    assert (await ads.ask(*removal, viewer, reason="because")).status_code == 403
    assert (await ads.ask(*removal, operator, reason="because")).status_code == 204


async def test_a_change_in_between_is_no_obstacle(ads: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the policy is faster, the override is made on what is there then, once."""
    insert = overrides_db.insert_override
    beaten: list[bool] = []

    async def beaten_once(*arguments: Any) -> StoredOverride:
        if not beaten:
            beaten.append(True)
            raise Conflict("somebody else was faster")
        return await insert(*arguments)

    monkeypatch.setattr(overrides_db, "insert_override", beaten_once)
    assert (await made(ads))["id"] == 1
    assert [each["id"] for each in await listed(ads)] == [1]
