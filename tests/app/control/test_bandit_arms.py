"""Arms come and go under a bandit: it goes on with those that are left, and forgets nothing of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.clock import now_ms
from app.db.routes import StoredRoute
from app.events.types import Event
from app.jobs.learn import Learner
from routing.assignment import Asked, Plan
from routing.types import Reason
from tests.app.control.stage import Json, Stage, arm, document, faults
from tests.app.db.stage import HOUR_MS, get_route, put_route
from tests.app.events.facts import told
from tests.app.jobs.school import COUNTRY, bandit_spec, chosen, decided, learn, log

ARMS = ("old", "new", "third")
SPEC = bandit_spec(arms=ARMS, context=(COUNTRY,), warm_up=2)
BANDIT: Json = {"mode": "thompson", "reward": {"metric": "conversion"}}


@pytest.fixture
async def learned(stage: Stage) -> StoredRoute:
    """A route whose bandit has learnt four rewards of each of three arms, which gateways know."""
    route = await put_route(stage.database, SPEC, now_ms() - 9 * HOUR_MS)
    await learn(stage.database, now_ms())
    await happened(stage, route, 4)
    return route


async def taught(stage: Stage) -> None:
    """All that is mature is learnt, and gateways know."""
    await learn(stage.database, now_ms())
    await Learner(stage.database).publish(now_ms() + HOUR_MS)
    await stage.context.publish()


async def happened(stage: Stage, route: StoredRoute, times: int) -> None:
    """Two hours ago each arm that the route had was chosen so often, and `new` earned; all is learnt."""
    events: list[Event] = []
    for name in route.arm_ids:
        for _ in range(times):
            one = chosen(route, name, now_ms() - 2 * HOUR_MS)
            events += [decided(route, one, {"country": "DE"}), told(one, "profit", float(name == "new"))]
    await log(stage.database, *events)
    await taught(stage)


def reasons(stage: Stage) -> tuple[str | None, dict[str, Reason]]:
    """What is wrong with the bandit that gateways have, and which arms answer for which reason."""
    plan = Plan(stage.published())
    made = [plan.assign(Asked(None, 0, at_ms=1, nonce=nonce)) for nonce in range(2_000)]
    return plan.fault, {assignment.arm.name: assignment.reason for assignment in made}


async def rewards(stage: Stage) -> dict[str, int]:
    """From how many rewards the bandit has learnt of each arm."""
    found = await stage.read("/routes/ads/bandit")
    assert found["fault"] is None
    return {each["arm"]: each["rewards"] for each in found["arms"]}


async def test_an_arm_that_is_retired_leaves_the_others_to_the_bandit(
    stage: Stage, learned: StoredRoute
) -> None:
    """204 and a row of the timeline. Gateways divide among the others at once, by what was learnt of them."""
    assert reasons(stage) == (None, dict.fromkeys(ARMS, Reason.BANDIT))
    assert (await stage.ask("DELETE", "/routes/ads/arms/third", reason="worse")).status_code == 204
    assert reasons(stage) == (None, {"old": Reason.BANDIT, "new": Reason.BANDIT})
    assert await rewards(stage) == {"old": 4, "new": 4}
    row = (await stage.timeline())[-1]
    assert (row["kind"], row["challenger"], row["reason"]) == ("arm_retired", "third", "worse")


async def test_what_is_still_to_be_learnt_of_a_retired_arm_teaches_nothing(
    stage: Stage, learned: StoredRoute
) -> None:
    """Its decisions are not waited for; those of the others are learnt. A rebuild comes to the same."""
    await stage.ask("DELETE", "/routes/ads/arms/third")
    await happened(stage, learned, 3)
    assert await rewards(stage) == {"old": 7, "new": 7}
    found = await stage.read("/routes/ads/bandit")
    assert (found["pending"]["decisions"], found["unusable"]) == (0, 3)
    await stage.ask("POST", "/routes/ads/bandit/rebuild", {"reason": "doubts"})
    await learn(stage.database, now_ms())
    assert await rewards(stage) == {"old": 7, "new": 7}


async def test_a_champion_that_is_left_alone_answers_everybody(stage: Stage, learned: StoredRoute) -> None:
    """The bandit has no choice then, and nothing is wrong; a new arm has to be learnt of."""
    for name in ("third", "new"):
        assert (await stage.ask("DELETE", f"/routes/ads/arms/{name}")).status_code == 204
    assert reasons(stage) == (None, {"old": Reason.STATIC})
    assert await rewards(stage) == {"old": 4}
    await stage.ask("POST", "/routes/ads/arms", arm("new"))
    assert reasons(stage) == (None, {"old": Reason.BANDIT, "new": Reason.BANDIT})
    assert await rewards(stage) == {"old": 4, "new": 0}
    await happened(stage, await get_route(stage.database), 1)
    assert await rewards(stage) == {"old": 5, "new": 1}


async def test_the_champion_stays(stage: Stage, learned: StoredRoute) -> None:
    """Another one is promoted first; then the one before may go."""
    answer = await stage.ask("DELETE", "/routes/ads/arms/old")
    assert answer.status_code == 409
    assert "arm 'old' is the champion: promote another" in answer.json()["detail"]
    assert (await stage.post("promote", arm="new")).status_code == 200
    assert (await stage.ask("DELETE", "/routes/ads/arms/old")).status_code == 204
    assert reasons(stage) == (None, {"new": Reason.BANDIT, "third": Reason.BANDIT})


async def test_an_arm_that_has_a_cap_stays_until_it_has_none(stage: Stage) -> None:
    """Retired or made a shadow: 422 that says what to do first; nothing changes."""
    capped = replace(SPEC.bandit, caps={"third": 2_500}) if SPEC.bandit is not None else None
    await put_route(stage.database, replace(SPEC, bandit=capped))
    before = await stage.state()
    for answer in (
        await stage.ask("DELETE", "/routes/ads/arms/third"),
        await stage.ask("PATCH", "/routes/ads/arms/third", {"role": "shadow"}),
    ):
        assert answer.status_code == 422
        first = "must be taken out of the split before the arm goes or becomes a shadow"
        assert faults(answer) == {"split.cap.third": f"{first}, got 2500"}
    assert await stage.state() == before
    split = (await stage.read("/routes/ads"))["split"]
    await stage.ask("PUT", "/routes/ads/split", {**split, "cap": {}})
    assert (await stage.ask("DELETE", "/routes/ads/arms/third")).status_code == 204


async def test_the_caps_of_the_others_must_leave_room(stage: Stage) -> None:
    """422 with the field; nothing changes."""
    capped = replace(SPEC.bandit, caps={"old": 5_000, "new": 4_000}) if SPEC.bandit is not None else None
    await put_route(stage.database, replace(SPEC, bandit=capped))
    before = await stage.state()
    answer = await stage.ask("DELETE", "/routes/ads/arms/third")
    assert faults(answer) == {"split.cap": "must leave room for 10000 bp over all arms, got 9000"}
    assert await stage.state() == before


async def test_an_arm_that_left_the_document_leaves_a_declared_bandit(stage: Stage) -> None:
    """As it may: no weight says that it holds anything, and the bandit goes on with the others."""
    every = [arm("old", role="champion"), arm("new"), arm("third")]
    await stage.put(document(arms=every, split=BANDIT))
    await learn(stage.database, now_ms())
    applied = (await stage.put(document(arms=every[:2], split=BANDIT))).json()
    assert (applied["kept"], [change["field"] for change in applied["changes"]][:1]) == (
        [],
        ["arms.third.name"],
    )
    assert reasons(stage) == (None, {"old": Reason.BANDIT, "new": Reason.BANDIT})


@pytest.mark.parametrize("cap", [{}, {"third": 2_500}])
async def test_an_arm_stays_under_a_bandit_that_a_document_does_not_move(stage: Stage, cap: Json) -> None:
    """A person has set it over all arms: one that the document does not name, or wants as a shadow, holds
    traffic by it, and stays as it is, which is said."""
    every = [arm("old", role="champion"), arm("new"), arm("third")]
    await stage.put(document(arms=every))
    await stage.ask("PUT", "/routes/ads/split", {**BANDIT, "cap": cap})
    await taught(stage)
    fewer = [every[0], arm("new", role="shadow")]
    applied = (await stage.put(document(arms=fewer, split={"weights": {"old": 10_000}}))).json()
    kept = {field["field"]: (field["current"], field["declared"]) for field in applied["kept"]}
    assert kept.pop("split")[0]["mode"] == "thompson"
    assert kept == {
        "arms.new.role": ("challenger", "shadow"),
        "arms.third": ("in service", "absent"),
    }
    assert reasons(stage) == (None, dict.fromkeys(ARMS, Reason.BANDIT))
