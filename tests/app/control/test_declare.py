"""Roles and shares in a document are initial values: what has moved since stays, and is said to stay."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import count
from typing import Any

import pytest

from app.clock import now_ms
from app.control.declare import Author, Declared, declare
from app.control.documents import parse_route
from app.db import rollouts, routes
from app.db.errors import Conflict
from app.db.routes import Placement, StoredRoute
from app.db.session import Connection, Database
from app.db.timeline import Entry, Kind
from policies.lifecycle import promote
from tests.app.control.stage import Json, Stage, arm, document, faults
from tests.app.db.stage import Postgres

ALONE = document(arms=[arm("old", role="champion")], split={"weights": {"old": 10_000}})
CROWNED = document(arms=[arm("old"), arm("new", role="champion")], split={"weights": {"new": 10_000}})


async def test_a_split_that_nobody_moved_follows_the_document(ads: Stage) -> None:
    """Shares, and the champion, are those of the newest document."""
    answer = await ads.put(document(split={"weights": {"old": 8_000, "new": 2_000}}))
    assert [change["field"] for change in answer.json()["changes"]] == [
        "split.weights.old",
        "split.weights.new",
    ]
    assert await ads.weights() == {"old": 8_000, "new": 2_000}
    await ads.put(CROWNED)
    assert ads.published().champion.name == "new"
    assert await ads.weights() == {"old": 0, "new": 10_000}


@pytest.mark.parametrize("by", ["split", "promote", "rollback"])
async def test_what_has_moved_is_kept_and_reported(ads: Stage, by: str) -> None:
    """The same document again moves nothing back; the answer names both values, and no row is written."""
    if by == "split":
        await ads.ask("PUT", "/routes/ads/split", {"weights": {"old": 7_000, "new": 3_000}})
    else:
        await ads.post(by)
    before = await ads.state()
    applied = (await ads.put()).json()
    kept = {field["field"]: (field["current"], field["declared"]) for field in applied["kept"]}
    now = {arm: share for arm, share in (await ads.weights()).items() if share}
    assert kept.pop("split.weights") == (now, {"old": 9_000, "new": 1_000})
    assert kept == ({"champion": ("new", "old")} if by == "promote" else {})
    assert applied["changes"] == []
    assert applied["document"] == (await ads.put()).json()["document"]
    assert await ads.state() == before


async def test_the_rest_of_a_document_comes_into_force_beside_what_is_kept(ads: Stage) -> None:
    """A new policy is taken although the split stays as people have set it."""
    await ads.post("promote")
    applied = (await ads.put(document(allow_force=True))).json()
    assert [change["field"] for change in applied["changes"]] == ["allow_force"]
    assert [field["field"] for field in applied["kept"]] == ["champion", "split.weights"]
    assert ads.published().allow_force
    assert ads.published().champion.name == "new"


async def test_taking_over_moves_role_and_split_as_declared(ads: Stage) -> None:
    """`take_over` is an act of its own: a row in the timeline, and gateways follow."""
    await ads.post("promote")
    applied = (await ads.put(take_over=True)).json()
    assert applied["kept"] == []
    assert {change["field"] for change in applied["changes"]} >= {"arms.old.role", "split.weights.old"}
    assert await ads.weights() == {"old": 9_000, "new": 1_000}
    assert ads.published().champion.name == "old"
    row = (await ads.timeline())[-1]
    assert (row["kind"], row["champion"]) == ("route_changed", "old")
    before = await ads.state()
    await ads.put(take_over=True)
    assert await ads.state() == before


async def test_what_get_gives_can_be_put_unchanged(ads: Stage) -> None:
    """Export and import are each other's inverse, before and after the traffic has moved."""
    for action in (None, "promote", "rollback"):
        if action is not None:
            await ads.post(action)
        before = await ads.state()
        exported = await ads.read("/routes/ads")
        applied = (await ads.put(exported)).json()
        assert (applied["changes"], applied["kept"]) == ([], [])
        assert await ads.read("/routes/ads") == exported
        assert await ads.state() == before


async def test_an_export_does_not_let_an_older_file_undo_a_promotion(ads: Stage) -> None:
    """What was moved stays moved, whatever was declared in between."""
    await ads.post("promote")
    await ads.put(await ads.read("/routes/ads"))
    applied = (await ads.put()).json()
    assert (applied["changes"], len(applied["kept"])) == ([], 2)
    assert ads.published().champion.name == "new"


async def test_an_arm_that_left_the_document_is_retired(ads: Stage) -> None:
    """It held nothing: it is gone from the route and from gateways."""
    await ads.post("rollback")
    applied = (await ads.put(ALONE)).json()
    assert {change["field"] for change in applied["changes"]} >= {"arms.new.name"}
    assert [arm.name for arm in ads.published().arms] == ["old"]


async def test_an_arm_that_holds_traffic_stays_though_it_left_the_document(ads: Stage) -> None:
    """Somebody started its trial since: it stays in service, and the answer says so."""
    await ads.ask("PUT", "/routes/ads/split", {"weights": {"old": 6_000, "new": 4_000}})
    applied = (await ads.put(ALONE)).json()
    kept = {field["field"]: (field["current"], field["declared"]) for field in applied["kept"]}
    assert kept["arms.new"] == ("in service", "absent")
    assert await ads.weights() == {"old": 6_000, "new": 4_000}


async def test_taking_over_retires_even_an_arm_that_holds_traffic(ads: Stage) -> None:
    """The document wins, arms included; all traffic is where it says."""
    await ads.post("promote")
    applied = (await ads.put(ALONE, take_over=True)).json()
    assert applied["kept"] == []
    assert await ads.weights() == {"old": 10_000}


async def test_a_file_read_at_a_start_retires_nobody(ads: Stage) -> None:
    """An arm that was registered through the API yesterday outlives a restart with the old file."""
    await ads.ask("POST", "/routes/ads/arms", arm("third"))
    author = Author("file", now_ms())
    async with ads.database.transaction() as connection:
        declared = await declare(connection, parse_route(document()), author, retire_missing=False)
    assert declared.changes == ()
    assert [field.field for field in declared.kept] == ["arms.third"]
    assert set(await ads.weights()) == {"old", "new", "third"}


async def test_a_new_arm_joins_by_declaration(ads: Stage) -> None:
    """Without a share it waits; it has an id of its own."""
    await ads.put(document(arms=[*document()["arms"], arm("third")]))
    assert await ads.weights() == {"old": 9_000, "new": 1_000, "third": 0}
    assert len({found.id for found in ads.published().arms}) == 3


@pytest.mark.parametrize(
    ("field", "value"), [("kind", "continuous"), ("aggregate", "max"), ("missing", "zero")]
)
async def test_a_metric_never_changes_its_meaning(ads: Stage, field: str, value: str) -> None:
    """Sums are kept under its name. Refused by field, with what it is and what was asked; nothing changes."""
    before = await ads.state()
    metric: Json = {"name": "conversion", "kind": "binary", field: value}
    answer = await ads.put(document(metrics=[metric], allow_force=True))
    assert answer.status_code == 422
    found = faults(answer)
    assert list(found) == [f"metrics.0.{field}"]
    assert "must stay" in found[f"metrics.0.{field}"]
    assert f"got {value!r}" in found[f"metrics.0.{field}"]
    assert await ads.state() == before


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("unit", {"unit": {"header": "X-User-Id"}}),
        ("policy.day.length", {"policy": {"day": {"length": "1h"}}}),
        ("policy.day.timezone", {"policy": {"day": {"timezone": "Europe/Berlin"}}}),
    ],
)
async def test_what_evidence_is_counted_by_stays_during_a_trial(
    ads: Stage, field: str, changes: dict[str, Any]
) -> None:
    """Unit and day are refused with 409 while a challenger is on trial, and taken once none is."""
    before = await ads.state()
    answer = await ads.put(document(**changes))
    assert answer.status_code == 409
    assert answer.json()["detail"].startswith(f"{field} must not change while 'new' is on trial")
    assert await ads.state() == before
    await ads.post("rollback")
    assert (await ads.put(document(**changes))).status_code == 200


async def test_whether_units_keep_their_arms_stays_during_a_trial(stage: Stage) -> None:
    """For how long may change: who was drawn by which shares is counted as before."""
    unit: Json = {"unit": {"header": "X-User-Id"}}
    await stage.put(document(**unit, stickiness={"mode": "first_arm"}))
    answer = await stage.put(document(**unit))
    assert answer.status_code == 409
    assert answer.json()["detail"].startswith("stickiness.mode must not change while 'new' is on trial")
    kept = document(**unit, stickiness={"mode": "first_arm", "keep": "7d"})
    assert (await stage.put(kept)).status_code == 200
    await stage.post("rollback")
    assert (await stage.put(document(**unit))).status_code == 200


@pytest.mark.parametrize(
    "match",
    [
        {"path_prefix": "/r/ads"},
        {"path_prefix": "/r/ads/"},
        {"host": "ads.example.com"},
        {"host": "ADS.example.com", "path_prefix": "/"},
    ],
)
async def test_two_routes_never_match_the_same_requests(ads: Stage, match: Json) -> None:
    """However it is written. Refused with 409, nothing changes, and publishing goes on."""
    await ads.put(document("second", match={"host": "ads.example.com"}))
    before = await ads.state()
    answer = await ads.put(document("third", match=match))
    assert answer.status_code == 409
    assert "must differ from that of route" in answer.json()["detail"]
    assert await ads.state() == before
    await ads.put(document("fourth"))
    assert [route.name for route in ads.snapshot().routes] == ["ads", "fourth", "second"]


async def test_the_order_of_metrics_decides_the_goal_and_so_is_a_change(stage: Stage) -> None:
    """Without a named goal the first metric is it: to turn them round is a change, and is said to be one."""
    metrics = [{"name": name, "kind": "binary"} for name in ("clicks", "sales")]
    await stage.put(document(metrics=metrics))
    on_trial = await stage.put(document(metrics=metrics[::-1]))
    assert (on_trial.status_code, on_trial.json()["detail"].split(" while")[0]) == (
        409,
        "policy.goal must not change",
    )
    await stage.post("rollback")
    applied = (await stage.put(document(metrics=metrics[::-1]))).json()
    assert applied["changes"] == [{"field": "policy.goal", "before": "clicks", "after": "sales"}]
    assert (await stage.read("/routes/ads/rollout"))["goal"] == "sales"


async def test_no_zeros_can_be_counted_for_decisions_before_a_metric(ads: Stage) -> None:
    """A metric whose missing outcomes mean 0 is declared with its route, or its sums would not add up."""
    metric: Json = {"name": "later", "kind": "continuous", "missing": "zero"}
    answer = await ads.put(document(metrics=[*document()["metrics"], metric]))
    assert answer.status_code == 422
    assert "metrics.1.missing" in faults(answer)


async def test_a_refused_route_leaves_all_others_of_its_transaction(ads: Stage) -> None:
    """Routes declared together come into force together, or not at all."""
    before = await ads.state()
    first, second = (parse_route(document(name, match={"path_prefix": "/same"})) for name in ("x", "y"))

    async def declare_both() -> None:
        async with ads.database.transaction() as connection:
            await declare(connection, first, Author("file", now_ms()))
            await declare(connection, second, Author("file", now_ms()))

    with pytest.raises(Conflict, match="must differ from that of route 'x'"):
        await declare_both()
    assert await ads.state() == before


async def test_declaring_what_is_so_already_is_a_change_of_its_own(ads: Stage) -> None:
    """What has moved and is taken over is what the next document starts from. It makes a new version."""
    await ads.post("promote")
    seen = (await ads.http.get("/v1/routes/ads")).headers["etag"]
    exported = await ads.read("/routes/ads")
    applied = (await ads.put(exported, take_over=True)).json()
    assert (applied["changes"], applied["kept"]) == ([], [])
    stale = await ads.http.put("/v1/routes/ads", json=exported, headers={"If-Match": seen})
    assert stale.status_code == 412
    assert (await ads.put(document())).json()["kept"] == []


async def crowned(database: Database) -> None:
    """A route whose challenger was promoted since it was declared."""
    at_ms = now_ms()
    async with database.transaction() as connection:
        route = (await declare(connection, parse_route(document()), Author("file", at_ms))).route
        entry = Entry(Kind.PROMOTED, "ann", "it won", "new")
        await rollouts.save(connection, route, promote(route.rollout, "new", at_ms), entry, at_ms)


async def declared(database: Database, body: Json, take_over: bool) -> Declared:
    """Declares a route in a transaction of its own."""
    async with database.transaction() as connection:
        return await declare(connection, parse_route(body), Author("file", now_ms()), take_over=take_over)


def both_read_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets two who declare go on once each of them has read the route."""
    load, ready, reads = routes.load_route, asyncio.Barrier(2), count()

    async def load_together(connection: Connection, name: str) -> StoredRoute:
        route = await load(connection, name)
        if next(reads) < 2:
            await ready.wait()
        return route

    monkeypatch.setattr(routes, "load_route", load_together)


@pytest.fixture
async def on_postgres(postgres: Postgres) -> AsyncIterator[Database]:
    """A database on PostgreSQL, where two may write at once."""
    async with postgres.migrated() as url:
        database = Database(url)
        yield database
        await database.close()


@pytest.mark.parametrize("order", [1, -1])
async def test_of_two_who_declare_at_once_exactly_one_wins(
    on_postgres: Database, order: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One takes over what has moved and changes nothing else, the other one changes a field: what is stored
    is what the winner declared, and the other is told Conflict."""
    await crowned(on_postgres)
    both_read_first(monkeypatch)
    writers = [
        declared(on_postgres, CROWNED, take_over=True),
        declared(on_postgres, document(allow_force=True), take_over=False),
    ]
    taken, changed = (await asyncio.gather(*writers[::order], return_exceptions=True))[::order]
    assert [type(taken), type(changed)].count(Conflict) == 1, (taken, changed)
    async with on_postgres.read() as connection:
        now = await routes.load_route(connection, "ads")
    assert (now.declared == Placement.of(now.spec)) is isinstance(taken, Declared)
    assert now.spec.allow_force is isinstance(changed, Declared)
    assert now.version == 3


BANDIT: Json = {"mode": "thompson", "reward": {"metric": "conversion"}}


async def test_a_declared_bandit_divides_until_somebody_moves_it(ads: Stage) -> None:
    """A document brings it, in a new epoch; set to weights by hand it stays so, and the document is told."""
    epoch = ads.published().epoch
    applied = (await ads.put(document(split=BANDIT))).json()
    changed = {change["field"] for change in applied["changes"]}
    assert {"split.mode", "split.reward.metric"} <= changed
    assert ads.published().bandit is not None
    assert ads.published().epoch == epoch + 1
    await ads.ask("PUT", "/routes/ads/split", {"weights": {"old": 10_000}})
    applied = (await ads.put(document(split=BANDIT))).json()
    (kept,) = [field for field in applied["kept"] if field["field"] == "split"]
    assert (kept["current"]["mode"], kept["declared"]["mode"]) == ("weights", "thompson")
    assert ads.published().bandit is None
    await ads.put(document(split=BANDIT), take_over=True)
    assert ads.published().bandit is not None


async def test_a_bandit_over_all_traffic_begins_a_new_epoch(stage: Stage) -> None:
    """Also where the champion has had all of it, so that no weight changes."""
    await stage.put(document(split={"weights": {"old": 10_000}}))
    epoch = stage.published().epoch
    await stage.put(document(split=BANDIT))
    assert stage.published().epoch == epoch + 1


async def test_a_metric_that_a_bandit_learns_from_must_stay(ads: Stage) -> None:
    """Where the bandit was set by hand, the document does not know of it."""
    await ads.ask("PUT", "/routes/ads/split", BANDIT)
    other = [{"name": "profit", "kind": "continuous"}]
    answer = await ads.put(document(metrics=other))
    assert answer.status_code == 422
    assert "got 'conversion'" in faults(answer)["split.reward"]
