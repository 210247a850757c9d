"""What was judged, what changed, and who was champion when: read as it was written."""

from __future__ import annotations

from typing import Any

import pytest

from app.db import rollouts
from app.db.evaluations import Evaluation, EvaluationKind, insert_evaluation
from app.db.routes import StoredRoute, delete_route
from app.db.timeline import Entry, Kind
from policies.comparison import Interval
from policies.guardrails import GuardrailReading
from policies.lifecycle import promote, roll_back
from policies.promotion import ArmEstimate, Judgement, Streak
from policies.types import Action, Verdict
from tests.app.control.stage import Stage, document, faults
from tests.app.db.stage import DAY_MS, START_MS, fill, get_route, put_route, route_spec, save

JUDGEMENT = Judgement(
    Verdict.WIN,
    "chance_to_beat",
    days=7,
    champion=ArmEstimate(n=900, mean=0.1, low=0.09, high=0.11),
    challenger=ArmEstimate(n=100, mean=0.2, low=0.15, high=0.25),
    chance_to_beat=0.99,
    expected_loss=0.0001,
    allowed_loss=0.001,
    lift=Interval(1.0, 0.5, 1.5),
    threshold=0.975,
)
READING = GuardrailReading("error", 3.5, 100.0, False, True, 0.01, 0.02)


def _evaluation(route: StoredRoute, day: int, challenger: str = "new") -> Evaluation:
    return Evaluation(
        at_ms=START_MS + (day + 1) * DAY_MS,
        day=f"2025-01-{6 + day:02}",
        day_start_ms=START_MS + day * DAY_MS,
        challenger=challenger,
        champion="old",
        verdict=Verdict.WIN,
        reason="chance_to_beat",
        action=Action.STEP,
        streak=Streak(winning=3),
        judgement=JUDGEMENT if day else None,
        guardrails=(READING,),
        weights={"old": 9_000, "new": 1_000},
        version=route.version,
        trial_started_at_ms=START_MS,
        kind=EvaluationKind.DAY,
    )


@pytest.fixture
async def judged(stage: Stage) -> Stage:
    """A control plane with a route that was judged on five days, the second challenger on the last."""
    route = await put_route(stage.database)
    async with stage.database.transaction() as connection:
        for day in range(5):
            challenger = "newer" if day == 4 else "new"
            await insert_evaluation(connection, route.id, _evaluation(route, day, challenger))
    return stage


async def test_an_evaluation_shows_evidence_verdict_and_action(judged: Stage) -> None:
    """As frozen in the database, with times in UTC; without a judgement its fields are null."""
    found = (await judged.read("/routes/ads/evaluations"))["evaluations"]
    assert [evaluation["day"] for evaluation in found] == [f"2025-01-{day:02}" for day in range(10, 5, -1)]
    newest, oldest = found[1], found[-1]
    assert newest["at"] == "2025-01-10T00:00:00Z"
    assert (newest["champion"], newest["challenger"], newest["verdict"]) == ("old", "new", "win")
    assert (newest["action"], newest["streak"]) == ("step", {"winning": 3, "losing": 0, "frozen": 0})
    assert (newest["chance_to_beat"], newest["threshold"], newest["days"]) == (0.99, 0.975, 7)
    assert newest["lift"] == {"mean": 1.0, "low": 0.5, "high": 1.5}
    assert newest["arms"]["new"] == {"n": 100, "mean": 0.2, "low": 0.15, "high": 0.25}
    assert (
        newest["guardrails"][0] | {"metric": "error", "e_value": 3.5, "breached": False}
        == (newest["guardrails"][0])
    )
    assert (oldest["chance_to_beat"], oldest["lift"], oldest["arms"]) == (None, None, {})


@pytest.mark.parametrize("what", ["evaluations", "timeline"])
async def test_pages_follow_each_other_without_gap_or_repeat(judged: Stage, what: str) -> None:
    """`next` leads on until it is null; newest first."""
    for number in range(4):
        await judged.ask(
            "PUT", "/routes/ads/split", {"weights": {"old": 5_000 + number, "new": 5_000 - number}}
        )
    whole = await judged.read(f"/routes/ads/{what}", limit=1000)
    ids = [row["id"] for row in whole[what]]
    assert (len(ids), whole["next"]) == (5, None)
    assert ids == sorted(ids, reverse=True)
    page = await judged.read(f"/routes/ads/{what}", limit=2)
    seen = [row["id"] for row in page[what]]
    while page["next"] is not None:
        page = await judged.read(f"/routes/ads/{what}", limit=2, before=page["next"])
        seen += [row["id"] for row in page[what]]
    assert seen == ids


async def test_evaluations_can_be_those_of_one_challenger(judged: Stage) -> None:
    """An unknown one has none."""
    for name, count in (("new", 4), ("newer", 1), ("none", 0)):
        found = await judged.read("/routes/ads/evaluations", challenger=name)
        assert len(found["evaluations"]) == count


@pytest.mark.parametrize(
    ("path", "query", "field"),
    [
        ("timeline", {"limit": 0}, "limit"),
        ("timeline", {"limit": 1_001}, "limit"),
        ("evaluations", {"before": 0}, "before"),
        ("evaluations", {"before": 2**63}, "before"),
        ("timeline", {"before": "x"}, "before"),
        ("champion", {"at": "yesterday"}, "at"),
        ("champion", {"at": "2025-01-06T00:00:00"}, "at"),
        ("champion", {"at": "2025-01-06"}, "at"),
        ("champion", {"at": "9999-12-31T23:59:59-01:00"}, "at"),
        ("metrics", {"from": "2025-13-01"}, "from"),
        ("metrics", {"from": "2025-01-06T00:00:00"}, "from"),
        ("metrics", {"to": "tomorrow"}, "to"),
        ("metrics", {"to": "9999-12-31T23:59:59-01:00"}, "to"),
        ("metrics", {"to": ""}, "to"),
    ],
)
async def test_a_question_that_cannot_be_is_refused_by_parameter(
    ads: Stage, path: str, query: dict[str, Any], field: str
) -> None:
    """422 with the parameter's name."""
    answer = await ads.ask("GET", f"/routes/ads/{path}", **query)
    assert answer.status_code == 422
    assert list(faults(answer)) == [field]


async def test_the_champion_of_any_moment_is_known(stage: Stage) -> None:
    """Who, since when, until when and by which row; across a promotion, a return, and the route's end."""
    route = await put_route(stage.database, now_ms=START_MS)
    moved = promote(route.rollout, None, START_MS + DAY_MS)
    route = await save(stage.database, route, moved, Kind.PROMOTED, START_MS + DAY_MS)
    back = roll_back(route.rollout, None, START_MS + 3 * DAY_MS)
    route = await save(stage.database, route, back, Kind.ROLLED_BACK, START_MS + 3 * DAY_MS)
    expected = {
        "2025-01-06T00:00:00Z": ("old", "2025-01-06T00:00:00Z", "2025-01-07T00:00:00Z", "route_created"),
        "2025-01-06T23:59:59.999Z": ("old", "2025-01-06T00:00:00Z", "2025-01-07T00:00:00Z", "route_created"),
        "2025-01-07T00:00:00Z": ("new", "2025-01-07T00:00:00Z", "2025-01-09T00:00:00Z", "promoted"),
        "2025-01-08T02:00:00+02:00": ("new", "2025-01-07T00:00:00Z", "2025-01-09T00:00:00Z", "promoted"),
        "2025-02-01T00:00:00Z": ("old", "2025-01-09T00:00:00Z", None, "rolled_back"),
        "9999-12-31T23:59:59Z": ("old", "2025-01-09T00:00:00Z", None, "rolled_back"),
    }
    for at, (champion, since, until, kind) in expected.items():
        found = await stage.read("/routes/ads/champion", at=at)
        assert (found["champion"], found["since"], found["until"]) == (champion, since, until), at
        assert (found["crowned"]["kind"], found["crowned"]["champion"]) == (kind, champion)
    assert (await stage.read("/routes/ads/champion"))["champion"] == "old"
    async with stage.database.transaction() as connection:
        entry = Entry(Kind.ROUTE_DELETED, "ann", "over")
        await rollouts.save(connection, route, route.rollout, entry, START_MS + 5 * DAY_MS)
        await delete_route(connection, route.id, START_MS + 5 * DAY_MS)
    assert (await stage.read("/routes/ads/champion", at="2025-01-09T00:00:00Z"))["until"] == (
        "2025-01-11T00:00:00Z"
    )
    for at in ("2025-01-05T23:59:59Z", "2025-01-11T00:00:00Z"):
        answer = await stage.ask("GET", "/routes/ads/champion", at=at)
        assert answer.status_code == 404
        assert "had no champion at that time" in answer.json()["detail"]


async def test_metrics_are_the_sums_of_each_day_and_arm(stage: Stage) -> None:
    """Decisions and values by assigned arm, oldest first; days may be asked for, both ends included."""
    route = await put_route(stage.database)
    for day in range(3):
        await fill(stage.database, route, day, {"old": (900, 90), "new": (100, 20 + day)})
    days = (await stage.read("/routes/ads/metrics"))["days"]
    assert [(row["day"], row["arm"]) for row in days[:2]] == [("2025-01-06", "old"), ("2025-01-06", "new")]
    assert days[1] == {
        "day": "2025-01-06",
        "arm": "new",
        "decisions": 100,
        "deciding": 100,
        "metrics": {
            "conversion": {"n": 100, "sum": 20.0, "mean": 0.2},
            "error": {"n": 100, "sum": 0.0, "mean": 0.0},
        },
        "late": {},
    }
    asked = {
        ("2025-01-07", "2025-01-07"): {"2025-01-07"},
        ("2025-01-07", "9999-12-31"): {"2025-01-07", "2025-01-08"},
        ("0001-01-01", "2025-01-06"): {"2025-01-06"},
        ("2025-01-06T00:00:00.001Z", "2025-01-08T00:00:00Z"): {"2025-01-07", "2025-01-08"},
        ("2025-01-08", "2025-01-06"): set(),
    }
    for (first, last), expected in asked.items():
        found = await stage.read("/routes/ads/metrics", **{"from": first, "to": last})
        assert {row["day"] for row in found["days"]} == expected, (first, last)


async def test_the_timeline_outlives_a_redeclared_route(ads: Stage) -> None:
    """After every kind of change it holds all of them, in the order in which they were made."""
    await ads.put(document(allow_force=True))
    await ads.post("pause")
    await ads.post("resume")
    await ads.post("promote")
    await ads.ask("DELETE", "/routes/ads")
    rows = await ads.timeline()
    kinds = ["route_created", "route_changed", "paused", "resumed", "promoted", "route_deleted"]
    assert [row["kind"] for row in rows] == kinds
    assert [row["version"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert all(row["actor"] == "local" and row["reason"] and row["at"].endswith("Z") for row in rows)


async def test_figures_follow_the_rollout(stage: Stage) -> None:
    """Shares, streaks and switches of every route, as Prometheus reads them."""
    await put_route(stage.database, route_spec("other"))
    await stage.put()
    await stage.post("pause")
    await stage.ask("PUT", "/routes/ads/kill-switch")
    answer = await stage.http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    for line in (
        'kingmaker_arm_share_bp{arm="new",role="challenger",route="ads"} 1000.0',
        'kingmaker_arm_share_bp{arm="old",role="champion",route="other"} 9000.0',
        'kingmaker_winning_days{arm="new",route="ads"} 0.0',
        'kingmaker_kill_switch{route="ads"} 1.0',
        'kingmaker_suspended{route="ads"} 1.0',
        'kingmaker_kill_switch{route="other"} 0.0',
        f"kingmaker_current_snapshot_version {float(stage.snapshot().version)}",
    ):
        assert f"\n{line}\n" in answer.text, line
    assert (await get_route(stage.database)).rollout.kill_switch
