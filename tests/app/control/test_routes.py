"""A route is declared whole: all of it comes into force, or nothing of it and a refusal."""

from __future__ import annotations

import pytest

from tests.app.control.stage import Json, Stage, arm, document, faults

CHANGED = document(policy={"ramp": [5_000, 10_000], "winning_days": 5}, allow_force=True)


async def test_a_new_route_is_stored_published_and_noted(stage: Stage) -> None:
    """201 with the route as it is now; gateways have it; the timeline says who made it."""
    answer = await stage.put()
    assert (answer.status_code, answer.headers["ETag"]) == (201, '"1"')
    applied = answer.json()
    assert (applied["route"], applied["created"], applied["dry_run"]) == ("ads", True, False)
    assert (applied["changes"], applied["kept"]) == ([], [])
    assert stage.published().champion.name == "old"
    (row,) = await stage.timeline()
    assert (row["kind"], row["actor"], row["champion"]) == ("route_created", "local", "old")
    assert row["weights"] == {"old": 9_000, "new": 1_000}


async def test_only_route_arms_and_split_are_required(stage: Stage) -> None:
    """The rest has the documented defaults."""
    least: Json = {
        "route": "ads",
        "arms": [arm("old", role="champion")],
        "split": {"weights": {"old": 10_000}},
        "metrics": [{"name": "conversion", "kind": "binary"}],
    }
    assert (await stage.put({k: least[k] for k in ("route", "arms", "split")})).status_code == 201
    assert (await stage.put(least)).status_code == 200
    route = await stage.read("/routes/ads")
    assert route["match"] == {"path_prefix": "/r/ads"}
    assert "unit" not in route
    assert (
        route["metrics"][0] | {"window": "24h", "aggregate": "first", "better": "higher"}
        == (route["metrics"][0])
    )
    assert (route["policy"]["confidence"], route["policy"]["ramp"]) == (0.975, [10_000])
    assert route["upstream"]["fallback"] is True
    assert route["allow_force"] is False


@pytest.mark.parametrize("left_out", ["route", "arms", "split"])
async def test_what_is_required_is_missed_by_name(stage: Stage, left_out: str) -> None:
    """Each required field that is not there is named."""
    body = {name: value for name, value in document().items() if name != left_out}
    answer = await stage.ask("PUT", "/routes/ads", body)
    assert answer.status_code == 422
    assert faults(answer) == {left_out: "is required"}


async def test_declaring_the_same_again_does_nothing(ads: Stage) -> None:
    """No change, no row, no new version, not a byte of the snapshot; the answer says so."""
    before = await ads.state()
    answer = await ads.put()
    assert (answer.status_code, answer.headers["ETag"]) == (200, '"1"')
    assert (answer.json()["created"], answer.json()["changes"], answer.json()["kept"]) == (False, [], [])
    assert await ads.state() == before


async def test_a_change_is_reported_field_by_field(ads: Stage) -> None:
    """Names are those of the document, with both values; the timeline keeps them as evidence."""
    version = ads.snapshot().version
    answer = await ads.put(CHANGED)
    assert (answer.status_code, answer.headers["ETag"]) == (200, '"2"')
    changes = [
        {"field": "policy.winning_days", "before": 3, "after": 5},
        {"field": "allow_force", "before": False, "after": True},
    ]
    assert answer.json()["changes"] == changes
    assert answer.json()["document"]["allow_force"] is True
    assert ads.published().allow_force
    assert ads.snapshot().version == version + 1
    row = (await ads.timeline())[-1]
    assert (row["kind"], row["evidence"], row["version"]) == ("route_changed", changes, 2)


async def test_every_part_of_a_route_can_change(ads: Stage) -> None:
    """Match, arms, metrics and upstream, all at once, and gateways have all of it."""
    await ads.post("rollback")
    wanted = document(
        match={"path_prefix": "/v1/chat/completions", "host": "Models.Example.com"},
        unit={"json": "/user/id"},
        arms=[arm("old", role="champion", url="http://127.0.0.1:9/moved"), arm("third", labels={"a": "b"})],
        split={"weights": {"old": 10_000}},
        metrics=[
            {"name": "conversion", "kind": "binary", "window": "1h"},
            {"name": "x", "kind": "continuous"},
        ],
        upstream={"timeout": "5s", "connect_timeout": "1s", "max_connections": 7, "fallback": False},
    )
    answer = await ads.put(wanted)
    assert answer.status_code == 200, answer.text
    fields = {change["field"] for change in answer.json()["changes"]}
    assert {"arms.old.url", "arms.new.name", "metrics.conversion.window", "upstream.timeout"} <= fields
    route = ads.published()
    assert (route.match.host, route.match.path_prefix) == ("models.example.com", "/v1/chat/completions")
    assert [(found.name, found.url) for found in route.arms] == [
        ("old", "http://127.0.0.1:9/moved"),
        ("third", "http://127.0.0.1:9000/third"),
    ]
    assert route.unit is not None
    assert (route.unit.kind, route.unit.name) == ("json", "/user/id")
    assert [(metric.name, metric.window_ms) for metric in route.metrics] == [
        ("conversion", 3_600_000),
        ("x", 86_400_000),
    ]
    assert (route.upstream.timeout_ms, route.upstream.fallback) == (5_000, False)


@pytest.mark.parametrize("body", [document("fresh"), CHANGED, document()], ids=["new", "changed", "same"])
async def test_a_dry_run_says_what_would_change_and_changes_nothing(ads: Stage, body: Json) -> None:
    """Nothing is stored or published, and the answer is that of the real run, which follows."""
    before = await ads.state()
    rehearsed = await ads.put(body, dry_run=True)
    assert rehearsed.status_code == 200, rehearsed.text
    assert await ads.state() == before
    assert "ETag" not in rehearsed.headers, "the version of a rehearsal is nobody's"
    real = await ads.put(body)
    assert rehearsed.json() == real.json() | {"dry_run": True}


async def test_a_dry_run_refuses_what_the_real_run_would(ads: Stage) -> None:
    """Errors are the same, with the same status."""
    for body in (document(split={"weights": {"old": 1}}), document("other", match={"path_prefix": "/r/ads"})):
        rehearsed, real = await ads.put(body, dry_run=True), await ads.put(body)
        assert rehearsed.status_code == real.status_code >= 400
        assert rehearsed.json() == real.json()


async def test_a_write_by_somebody_who_read_an_old_version_is_refused(ads: Stage) -> None:
    """412 and nothing changes; with the version that is there, or `*`, it is carried out."""
    etag = (await ads.http.get("/v1/routes/ads")).headers["ETag"]
    assert (await ads.put(CHANGED)).status_code == 200
    before = await ads.state()
    stale = await ads.http.put("/v1/routes/ads", json=document(), headers={"If-Match": etag})
    assert stale.status_code == 412
    assert "version 2, not 1" in stale.json()["detail"]
    gone = await ads.http.delete("/v1/routes/ads", headers={"If-Match": etag})
    split = await ads.http.put(
        "/v1/routes/ads/split", json={"weights": {"old": 10_000}}, headers={"If-Match": etag}
    )
    assert (gone.status_code, split.status_code) == (412, 412)
    assert await ads.state() == before
    for tag in ('"2"', "*"):
        answer = await ads.http.put(
            "/v1/routes/ads", json=document(allow_force=tag == "*"), headers={"If-Match": tag}
        )
        assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("tag", ["2", '"two"', '"', "", '"1", "2"', '"' + "9" * 40 + '"'])
async def test_an_if_match_that_is_none_of_ours_matches_nothing(ads: Stage, tag: str) -> None:
    """412, and nothing changes."""
    before = await ads.state()
    answer = await ads.http.put("/v1/routes/ads", json=CHANGED, headers={"If-Match": tag})
    assert answer.status_code == 412
    assert faults(answer) == {}
    assert await ads.state() == before


@pytest.mark.parametrize("tag", ["*", '"1"'])
async def test_if_match_never_makes_a_route(stage: Stage, tag: str) -> None:
    """Whoever has read a version means a route that is there."""
    answer = await stage.http.put("/v1/routes/ads", json=document(), headers={"If-Match": tag})
    assert answer.status_code == 412
    assert (await stage.read("/routes"))["routes"] == []


async def test_a_deleted_route_leaves_gateways_but_not_history(ads: Stage) -> None:
    """204; nobody routes by it, nobody reads it, and its timeline ends with who deleted it and why."""
    await ads.put(document("other"))
    answer = await ads.ask("DELETE", "/routes/ads", reason="retired product")
    assert answer.status_code == 204
    assert [route.name for route in ads.snapshot().routes] == ["other"]
    assert [route["route"] for route in (await ads.read("/routes"))["routes"]] == ["other"]
    assert (await ads.ask("GET", "/routes/ads")).status_code == 404
    row = (await ads.timeline())[-1]
    assert (row["kind"], row["reason"]) == ("route_deleted", "retired product")


async def test_a_name_that_is_free_again_gets_a_new_route(ads: Stage) -> None:
    """Its ids are new, so tokens of the old one are not taken for it, and its history begins."""
    old = ads.published()
    await ads.ask("DELETE", "/routes/ads")
    assert (await ads.put()).status_code == 201
    assert ads.published().id != old.id
    assert {arm.id for arm in ads.published().arms}.isdisjoint(arm.id for arm in old.arms)
    assert [row["kind"] for row in await ads.timeline()] == ["route_created"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/routes/none"),
        ("DELETE", "/routes/none"),
        ("GET", "/routes/none/rollout"),
        ("GET", "/routes/none/timeline"),
        ("GET", "/routes/none/evaluations"),
        ("GET", "/routes/none/champion"),
        ("GET", "/routes/none/metrics"),
        ("DELETE", "/routes/none/arms/old"),
        ("DELETE", "/routes/none/kill-switch"),
    ],
)
async def test_there_is_no_such_route(ads: Stage, method: str, path: str) -> None:
    """404, by name."""
    answer = await ads.ask(method, path)
    assert answer.status_code == 404
    assert faults(answer) == {}
    assert "'none'" in answer.json()["detail"]


async def test_the_name_in_the_path_is_the_name_in_the_body(ads: Stage) -> None:
    """A document under another route's name is refused, as a fault of the field."""
    before = await ads.state()
    answer = await ads.ask("PUT", "/routes/ads", document("other"))
    assert answer.status_code == 422
    assert faults(answer) == {"route": "must be 'ads' as in the path, got 'other'"}
    assert await ads.state() == before


async def test_routes_are_listed_by_name(stage: Stage) -> None:
    """Each as GET gives it."""
    for name in ("b", "a"):
        await stage.put(document(name))
    listed = (await stage.read("/routes"))["routes"]
    assert listed == [await stage.read("/routes/a"), await stage.read("/routes/b")]
