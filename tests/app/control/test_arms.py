"""Arms come, change and go; what they get of the traffic is another matter."""

from __future__ import annotations

import pytest

from tests.app.control.stage import Json, Stage, arm, document, faults


async def test_a_registered_challenger_waits_without_traffic(ads: Stage) -> None:
    """201 with the arm; gateways know it, nobody is sent to it, and the timeline says who brought it."""
    wanted = arm("third", labels={"mlflow": "models:/bidder/8"}, headers={"X-Key": {"env": "KEY"}})
    answer = await ads.ask("POST", "/routes/ads/arms", wanted)
    assert answer.status_code == 201
    assert answer.json() == {**wanted, "role": "challenger"}
    assert [found.name for found in ads.published().arms] == ["old", "new", "third"]
    assert await ads.weights() == {"old": 9_000, "new": 1_000, "third": 0}
    row = (await ads.timeline())[-1]
    assert (row["kind"], row["actor"], row["challenger"]) == ("arm_added", "local", "third")


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        (arm("third", url="ftp://127.0.0.1/"), "url", "scheme http, https or http+unix, got 'ftp'"),
        (arm("Third"), "name", "must match"),
        (arm("third", headers={"Host": "x"}), "headers.Host", "the gateway sets itself"),
        (arm("third", role="champion"), "role", "must be challenger or shadow for a new arm"),
        (arm("third", weight=1), "weight", "is not a known field"),
        ({"name": "third"}, "url", "is required"),
    ],
)
async def test_an_arm_that_cannot_be_is_refused_by_field(
    ads: Stage, body: Json, field: str, message: str
) -> None:
    """Fields are named as they stand in the body; nothing changes."""
    before = await ads.state()
    answer = await ads.ask("POST", "/routes/ads/arms", body)
    assert answer.status_code == 422
    assert message in faults(answer)[field]
    assert await ads.state() == before


async def test_a_name_that_is_taken_is_a_conflict(ads: Stage) -> None:
    """409, and nothing changes."""
    before = await ads.state()
    answer = await ads.ask("POST", "/routes/ads/arms", arm("new"))
    assert answer.status_code == 409
    assert "got 'new'" in answer.json()["detail"]
    assert await ads.state() == before


async def test_a_change_of_an_arm_touches_what_it_names(ads: Stage) -> None:
    """The rest stays, id and share included; gateways follow, and the timeline names the fields."""
    id_before = ads.published().arms[1].id
    answer = await ads.ask(
        "PATCH", "/routes/ads/arms/new", {"url": "http://127.0.0.1:9/b", "labels": {"a": "b"}}
    )
    assert answer.status_code == 200
    assert answer.json() == arm("new", url="http://127.0.0.1:9/b", labels={"a": "b"}, headers={}) | {
        "role": "challenger"
    }
    changed = ads.published().arms[1]
    assert (changed.id, changed.url) == (id_before, "http://127.0.0.1:9/b")
    assert await ads.weights() == {"old": 9_000, "new": 1_000}
    row = (await ads.timeline())[-1]
    assert (row["kind"], row["challenger"], row["reason"]) == ("arm_changed", "new", "changed url, labels")
    kept = await ads.ask("PATCH", "/routes/ads/arms/new", {"headers": {"X-Tier": "gold"}})
    assert kept.json()["labels"] == {"a": "b"}


@pytest.mark.parametrize("body", [{}, {"url": None}, {"url": "http://127.0.0.1:9000/new", "labels": {}}])
async def test_a_change_to_what_is_already_so_does_nothing(ads: Stage, body: Json) -> None:
    """No row, no version, no snapshot."""
    before = await ads.state()
    assert (await ads.ask("PATCH", "/routes/ads/arms/new", body)).status_code == 200
    assert await ads.state() == before


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        ({"url": "ftp://127.0.0.1/"}, "url", "scheme http, https or http+unix, got 'ftp'"),
        ({"headers": {"Kingmaker-Arm": "x"}}, "headers.Kingmaker-Arm", "the gateway sets itself"),
        ({"role": "champion"}, "role", "'challenger' or 'shadow', got 'champion'"),
        (
            {"sample": 0.5},
            "sample",
            "must be left out for an arm that is no shadow, got 0.5 for a challenger",
        ),
        ({"tls": {"ca": "/ca.pem"}}, "tls", "unless the url has scheme https, got 'http'"),
        ({"tls": {"cert": "/ca.pem"}}, "tls.cert", "is not a known field"),
        ({"labels": {"a": 1}}, "labels.a", "string, got 1"),
    ],
)
async def test_a_bad_change_is_refused_by_field(ads: Stage, body: Json, field: str, message: str) -> None:
    """Nothing changes."""
    before = await ads.state()
    answer = await ads.ask("PATCH", "/routes/ads/arms/new", body)
    assert answer.status_code == 422
    assert message in faults(answer)[field]
    assert await ads.state() == before


async def test_a_retired_arm_is_gone_and_its_name_free(ads: Stage) -> None:
    """204 once it holds nothing; an arm of its name gets an id of its own."""
    await ads.post("rollback")
    old_id = ads.published().arms[1].id
    answer = await ads.ask("DELETE", "/routes/ads/arms/new", reason="too slow")
    assert (answer.status_code, answer.content) == (204, b"")
    assert [found.name for found in ads.published().arms] == ["old"]
    assert await ads.weights() == {"old": 10_000}
    row = (await ads.timeline())[-1]
    assert (row["kind"], row["challenger"], row["reason"]) == ("arm_retired", "new", "too slow")
    assert (await ads.ask("POST", "/routes/ads/arms", arm("new"))).status_code == 201
    assert ads.published().arms[1].id != old_id


@pytest.mark.parametrize(("name", "why"), [("old", "is the champion"), ("new", "holds 1000 bp")])
async def test_an_arm_with_traffic_stays(ads: Stage, name: str, why: str) -> None:
    """409 that says what it holds; nothing changes."""
    before = await ads.state()
    answer = await ads.ask("DELETE", f"/routes/ads/arms/{name}")
    assert answer.status_code == 409
    assert why in answer.json()["detail"]
    assert await ads.state() == before


async def test_there_is_no_such_arm(ads: Stage) -> None:
    """404, by name, whatever is asked of it."""
    before = await ads.state()
    for answer in (
        await ads.ask("PATCH", "/routes/ads/arms/none", {"url": "http://127.0.0.1:9/"}),
        await ads.ask("DELETE", "/routes/ads/arms/none"),
    ):
        assert answer.status_code == 404
        assert "'none'" in answer.json()["detail"]
    assert await ads.state() == before


async def test_an_old_version_changes_no_arm(ads: Stage) -> None:
    """If-Match guards arms too: 412, and nothing changes."""
    await ads.put(document(allow_force=True))
    before = await ads.state()
    stale = {"If-Match": '"1"'}
    for answer in (
        await ads.http.patch("/v1/routes/ads/arms/new", json={"labels": {"a": "b"}}, headers=stale),
        await ads.http.delete("/v1/routes/ads/arms/new", headers=stale),
    ):
        assert answer.status_code == 412
    assert await ads.state() == before
