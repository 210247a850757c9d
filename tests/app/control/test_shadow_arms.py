"""A shadow arm is sent copies and answers nobody: no split, trial or crown is ever its."""

from __future__ import annotations

import pytest

from routing.types import Role
from tests.app.control.stage import Json, Stage, arm, document, faults

SHADOW = arm("dark", role="shadow", sample=0.1)
WITH_SHADOW = document(arms=[*document()["arms"], SHADOW])


@pytest.fixture
async def shaded(stage: Stage) -> Stage:
    """A control plane with the route `ads`, which has the shadow arm `dark` beside its challenger."""
    answer = await stage.put(WITH_SHADOW)
    assert answer.status_code == 201, answer.text
    return stage


async def test_a_shadow_is_known_to_gateways_and_no_part_of_the_split(shaded: Stage) -> None:
    """They have its role and sample; neither shares nor rollout name it, and its export is as it was."""
    dark = shaded.published().arm_named("dark")
    assert dark is not None
    assert (dark.role, dark.sample_bp) == (Role.SHADOW, 1_000)
    assert dark.id not in {share.arm_id for share in shaded.published().shares}
    assert await shaded.weights() == {"old": 9_000, "new": 1_000}
    rollout = await shaded.read("/routes/ads/rollout")
    assert [trial["arm"] for trial in rollout["trials"]] == ["new"]
    exported = await shaded.read("/routes/ads")
    assert exported["arms"][2] == {**SHADOW, "labels": {}, "headers": {}}
    assert exported["split"]["weights"] == {"old": 9_000, "new": 1_000}
    assert "sample" not in exported["arms"][1]


@pytest.mark.parametrize(
    ("changes", "field", "message"),
    [
        ({"sample": 0}, "arms.2.sample", "a share in (0, 1] of whole basis points (0.0001), got 0"),
        ({"sample": 1.1}, "arms.2.sample", "a share in (0, 1] of whole basis points (0.0001), got 1.1"),
        ({"sample": -0.1}, "arms.2.sample", "a share in (0, 1]"),
        ({"sample": 0.00015}, "arms.2.sample", "whole basis points (0.0001), got 0.00015"),
        ({"sample": 1e308}, "arms.2.sample", "a share in (0, 1]"),
        ({"sample": "0.1"}, "arms.2.sample", "number, got '0.1'"),
        ({"role": "challenger"}, "arms.2.sample", "must be left out for an arm that is no shadow, got 0.1"),
    ],
)
async def test_a_sample_that_cannot_be_is_refused(
    stage: Stage, changes: Json, field: str, message: str
) -> None:
    """By field, bound and value."""
    answer = await stage.put(document(arms=[*document()["arms"], {**SHADOW, **changes}]))
    assert answer.status_code == 422
    assert message in faults(answer)[field]


@pytest.mark.parametrize("sample", [0.0001, 0.07, 0.3333, 1, 1.0])
async def test_a_sample_of_whole_basis_points_is_kept(stage: Stage, sample: float) -> None:
    """However the number is written, down to one basis point."""
    answer = await stage.put(document(arms=[*document()["arms"], {**SHADOW, "sample": sample}]))
    assert answer.status_code == 201, answer.text
    assert answer.json()["document"]["arms"][2]["sample"] == sample


async def test_a_shadow_has_no_share_in_a_declaration(stage: Stage) -> None:
    """A weight of 0 says just that; any other is refused, with the arm's name."""
    zero = await stage.put({**WITH_SHADOW, "split": {"weights": {"old": 10_000, "dark": 0}}})
    assert zero.json()["document"]["split"]["weights"] == {"old": 10_000, "new": 0}
    answer = await stage.put({**WITH_SHADOW, "split": {"weights": {"old": 9_000, "dark": 1_000}}})
    assert answer.status_code == 422
    assert faults(answer) == {
        "split.weights.dark": "must be 0 or absent for a shadow arm, which answers nobody, got 1000"
    }


async def test_no_move_of_the_rollout_reaches_a_shadow(shaded: Stage) -> None:
    """Split, start, promote and rollback refuse it, and say why; nothing changes."""
    before = await shaded.state()
    split = await shaded.ask("PUT", "/routes/ads/split", {"weights": {"old": 9_000, "dark": 1_000}})
    assert split.status_code == 422
    assert faults(split)["weights.dark"].endswith("which answers nobody, got 1000")
    for action in ("start", "promote"):
        answer = await shaded.post(action, arm="dark")
        assert answer.status_code == 409
        assert "'dark' is a shadow and answers nobody" in answer.json()["detail"]
    assert (await shaded.post("rollback", arm="dark")).status_code == 409
    assert await shaded.state() == before
    assert (await shaded.ask("PUT", "/routes/ads/split", {"weights": {"old": 10_000, "dark": 0}})).is_success
    assert await shaded.weights() == {"old": 10_000, "new": 0}


async def test_a_promotion_leaves_a_shadow_what_it_is(shaded: Stage) -> None:
    """The crown passes between the others."""
    await shaded.post("promote")
    roles = {found.name: found.role for found in shaded.published().arms}
    assert roles == {"old": Role.CHALLENGER, "new": Role.CHAMPION, "dark": Role.SHADOW}
    assert await shaded.weights() == {"old": 0, "new": 10_000}


async def test_a_shadow_is_registered_changed_and_retired(ads: Stage) -> None:
    """Without any effect on who answers."""
    shares = ads.published().shares
    answer = await ads.ask("POST", "/routes/ads/arms", SHADOW)
    assert (answer.status_code, answer.json()) == (201, {**SHADOW, "labels": {}, "headers": {}})
    answer = await ads.ask("PATCH", "/routes/ads/arms/dark", {"sample": 0.25})
    assert answer.json()["sample"] == 0.25
    assert (await ads.timeline())[-1]["reason"] == "changed sample"
    dark = ads.published().arm_named("dark")
    assert dark is not None
    assert dark.sample_bp == 2_500
    assert (await ads.ask("DELETE", "/routes/ads/arms/dark")).status_code == 204
    assert ads.published().shares == shares
    assert await ads.weights() == {"old": 9_000, "new": 1_000}


async def test_a_shadow_becomes_a_challenger_and_then_can_be_tried(shaded: Stage) -> None:
    """It starts without a share; its sample is a matter of the past."""
    answer = await shaded.ask("PATCH", "/routes/ads/arms/dark", {"role": "challenger"})
    assert answer.json() == {**arm("dark", role="challenger"), "labels": {}, "headers": {}}
    assert await shaded.weights() == {"old": 9_000, "new": 1_000, "dark": 0}
    assert (await shaded.post("start", arm="dark", share=500)).status_code == 200
    assert (await shaded.weights())["dark"] == 500


async def test_an_arm_without_traffic_becomes_a_shadow(ads: Stage) -> None:
    """With all the traffic, or the sample that is said; one with a share, and the champion, stay."""
    for name, why in (("new", "holds 1000 bp"), ("old", "must stay champion until another arm is promoted")):
        refused = await ads.ask("PATCH", f"/routes/ads/arms/{name}", {"role": "shadow"})
        assert refused.status_code == 409
        assert why in refused.json()["detail"]
    await ads.post("rollback")
    answer = await ads.ask("PATCH", "/routes/ads/arms/new", {"role": "shadow"})
    assert (answer.json()["role"], answer.json()["sample"]) == ("shadow", 1.0)
    assert await ads.weights() == {"old": 10_000}
    assert (await ads.read("/routes/ads/rollout"))["trials"] == []


async def test_a_declaration_turns_a_shadow_into_a_challenger_and_back(shaded: Stage) -> None:
    """While nobody has moved the split, roles are as declared, shares too."""
    arms = [*document()["arms"], arm("dark")]
    weights = {"old": 8_000, "new": 1_000, "dark": 1_000}
    applied = (await shaded.put(document(arms=arms, split={"weights": weights}))).json()
    changed = {change["field"]: (change["before"], change["after"]) for change in applied["changes"]}
    assert changed["arms.dark.role"] == ("shadow", "challenger")
    assert changed["arms.dark.sample"] == (0.1, None)
    assert await shaded.weights() == weights
    assert (await shaded.put(WITH_SHADOW)).json()["kept"] == []
    assert await shaded.weights() == {"old": 9_000, "new": 1_000}


async def test_an_arm_that_was_given_traffic_since_does_not_become_a_shadow_by_declaration(
    shaded: Stage,
) -> None:
    """It stays what it is, as role and split do that have been moved, and the answer says so."""
    await shaded.ask("PATCH", "/routes/ads/arms/dark", {"role": "challenger"})
    await shaded.post("start", arm="dark", share=500)
    before = await shaded.weights()
    applied = (await shaded.put(WITH_SHADOW)).json()
    kept = {field["field"]: (field["current"], field["declared"]) for field in applied["kept"]}
    assert kept["arms.dark.role"] == ("challenger", "shadow")
    assert await shaded.weights() == before
    await shaded.post("promote", arm="dark")
    again = (await shaded.put(WITH_SHADOW)).json()
    assert {"field": "arms.dark.role", "current": "champion", "declared": "shadow"} in again["kept"]
    taken = (await shaded.put(WITH_SHADOW, take_over=True)).json()
    assert taken["kept"] == []
    assert await shaded.weights() == {"old": 9_000, "new": 1_000}


async def test_a_shadow_that_left_the_document_is_retired(shaded: Stage) -> None:
    """It holds nothing, so nothing keeps it."""
    applied = (await shaded.put(document())).json()
    assert "arms.dark.role" in {change["field"] for change in applied["changes"]}
    assert [found.name for found in shaded.published().arms] == ["old", "new"]


async def test_figures_show_a_shadow_without_a_share(shaded: Stage) -> None:
    """For Prometheus it is an arm with its role and nothing of the split."""
    text = (await shaded.http.get("/metrics")).text
    assert 'kingmaker_arm_share_bp{arm="dark",role="shadow",route="ads"} 0.0' in text
