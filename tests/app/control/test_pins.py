"""What a live override stands on stays: its arm, and the features that it reads."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from app.control import pins
from app.db.tables import overrides
from tests.app.control.stage import Json, Stage, arm, document

COUNTRY: Json = {"name": "country", "from": {"header": "X-Country"}, "type": "id"}
HOUR: Json = {"name": "hour", "from": {"header": "X-Hour"}, "type": "numeric", "min": 0, "max": 23}
ARMS = [arm("old", role="champion"), arm("new"), arm("third")]
WHOLE = document(arms=ARMS, context=[COUNTRY, HOUR], split={"weights": {"old": 10_000}})
IN_GERMANY = {"attribute": "context.country", "op": "equals", "values": ["DE"]}


@pytest.fixture
async def pinned(stage: Stage) -> Stage:
    """A route with all traffic on its champion, and overrides 1 and 2; the second one reads a feature."""
    assert (await stage.put(WHOLE)).status_code == 201
    for when in ([], [IN_GERMANY]):
        await pin(stage, when=when)
    return stage


async def pin(stage: Stage, **changes: object) -> None:
    """Makes an override to the challenger `new`."""
    body = {"arm": "new", "reason": "because", **changes}
    answer = await stage.ask("POST", "/routes/ads/overrides", body)
    assert answer.status_code == 201, answer.text


async def test_an_arm_that_is_pinned_stays_and_answers(pinned: Stage) -> None:
    """Whichever way it would go: 409 that names the overrides, and nothing changes."""
    before = await pinned.state()
    shadow = [*ARMS[:1], arm("new", role="shadow"), *ARMS[2:]]
    for answer in (
        await pinned.ask("DELETE", "/routes/ads/arms/new"),
        await pinned.ask("PATCH", "/routes/ads/arms/new", {"role": "shadow"}),
        await pinned.put({**WHOLE, "arms": [ARMS[0], ARMS[2]]}),
        await pinned.put({**WHOLE, "arms": shadow}, take_over=True),
        await pinned.put({**WHOLE, "arms": shadow}, dry_run=True),
    ):
        assert answer.status_code == 409
        expected = "route 'ads': arm 'new' is pinned by overrides 1, 2: remove them first"
        assert answer.json()["detail"] == expected
    assert await pinned.state() == before


async def test_a_feature_that_is_read_stays(pinned: Stage) -> None:
    """409 that names the feature and the override; a feature that none reads may go."""
    answer = await pinned.put({**WHOLE, "context": [HOUR]})
    assert answer.status_code == 409
    assert answer.json()["detail"].endswith("context.country is read by override 2: remove them first")
    assert (await pinned.put({**WHOLE, "context": [COUNTRY]})).status_code == 200


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"type": "categorical", "values": ["DE"]}, "type"),
        ({"from": {"json": "/country"}}, "from"),
        ({"from": {"query": "X-Country"}, "type": "text"}, "from and type"),
        ({"type": "numeric", "min": 0, "max": 9}, "type"),
    ],
)
async def test_a_feature_that_is_read_keeps_its_meaning(pinned: Stage, changes: Json, said: str) -> None:
    """Read elsewhere, or as something else, the same condition would hold for others, or for nobody."""
    before = await pinned.state()
    for dry_run in (False, True):
        answer = await pinned.put({**WHOLE, "context": [{**COUNTRY, **changes}, HOUR]}, dry_run=dry_run)
        assert answer.status_code == 409
        expected = f"context.country, whose {said} would change, is read by override 2: remove them first"
        assert answer.json()["detail"] == f"route 'ads': {expected}"
    assert await pinned.state() == before


@pytest.mark.parametrize("changes", [{"min": 1}, {"max": 24}, {"outside": "missing"}])
async def test_a_number_that_is_read_keeps_its_range(pinned: Stage, changes: Json) -> None:
    """What lies outside it is read as a bound, or not at all: both are compared."""
    await pin(pinned, when=[{"attribute": "context.hour", "op": "gte", "values": [23]}])
    answer = await pinned.put({**WHOLE, "context": [COUNTRY, {**HOUR, **changes}]})
    assert answer.status_code == 409
    assert f"whose {next(iter(changes))} would change, is read by override 3" in answer.json()["detail"]


async def test_what_is_not_read_of_a_feature_may_change(pinned: Stage) -> None:
    """How many columns it comes to, what stands in for it, and everything of features that none reads."""
    loose = {**HOUR, "from": {"json": "/hour"}, "max": 24}
    wider = {**COUNTRY, "buckets": 64, "default": "DE"}
    assert (await pinned.put({**WHOLE, "context": [wider, loose]})).status_code == 200


async def test_everything_in_the_way_is_said_at_once(pinned: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arms and features; of many overrides the first twenty (here one) are named."""
    monkeypatch.setattr(pins, "_SHOWN_IDS", 1)
    answer = await pinned.put({**WHOLE, "arms": [ARMS[0]], "context": []})
    assert answer.json()["detail"] == (
        "route 'ads': arm 'new' is pinned by overrides 1 and 1 more; "
        "context.country is read by override 2: remove them first"
    )


async def test_other_changes_go_on(pinned: Stage) -> None:
    """Other arms and fields, and what moves traffic alone, even the crown."""
    assert (await pinned.put({**WHOLE, "allow_force": True, "arms": ARMS[:2]})).status_code == 200
    await pinned.ask("PATCH", "/routes/ads/arms/new", {"url": "http://127.0.0.1:9000/moved"})
    for action in ("start", "promote", "rollback"):
        assert (await pinned.post(action, arm="new")).status_code == 200, action
    assert [override.id for override in pinned.published().overrides] == [1, 2]


async def test_an_arm_is_free_once_its_overrides_are_gone(pinned: Stage) -> None:
    """Removed, or expired, whether or not that is on the timeline yet."""
    for number in (1, 2):
        await pinned.ask("DELETE", f"/routes/ads/overrides/{number}", reason="over")
    await pin(pinned, expires_at=(datetime.now(UTC) + timedelta(hours=1)).isoformat())
    assert (await pinned.ask("DELETE", "/routes/ads/arms/new")).status_code == 409
    async with pinned.database.transaction() as connection:
        await connection.execute(overrides.update().values(expires_at_ms=1))
    assert (await pinned.ask("DELETE", "/routes/ads/arms/new")).status_code == 204


async def test_a_deleted_route_takes_its_overrides_along(pinned: Stage) -> None:
    """Without a word about each; a route that gets its name has none."""
    assert (await pinned.ask("DELETE", "/routes/ads")).status_code == 204
    assert [row["kind"] for row in (await pinned.timeline())[-2:]] == ["override_added", "route_deleted"]
    async with pinned.database.read() as connection:
        ended = (await connection.scalars(select(overrides.c.ended_at_ms))).all()
    assert None not in ended
    assert len(ended) == 2
    await pinned.put(WHOLE)
    assert await pinned.read("/routes/ads/overrides") == {"overrides": []}
