"""Claims about a whole installation while it runs: who answers, what is counted, how fast changes arrive."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import httpx

from tests.app.product import (
    Product,
    Server,
    Totals,
    converted,
    counted,
    eventually,
    route,
    units,
)

BOUND_SECONDS = 3.0
"""A change is promised within one second; on a busy test machine we wait this long."""


async def _split(product: Product, *flags: str, share: int = 5_000) -> Server:
    """A server with the route `bid` over two arms."""
    old, new = await product.arm("old"), await product.arm("new")
    return await product.serve(*flags, routes=[route(old, new, share)])


async def test_a_user_always_gets_the_same_arm_and_shares_are_near_their_weights(product: Product) -> None:
    """600 users at 30 %: each keeps its arm over connections, and both shares are within four deviations."""
    server = await _split(product, share=3_000)
    async with server.caller() as caller:
        first = {unit: await caller.arm_of(unit) for unit in units(600)}
    async with server.caller() as caller:
        again = {unit: await caller.arm_of(unit) for unit in units(600)}
    assert again == first
    deviation = (600 * 0.3 * 0.7) ** 0.5
    assert abs(Counter(first.values())["new"] - 180) < 4 * deviation


async def test_answers_carry_the_headers_of_the_contract(product: Product) -> None:
    """The decision's token, who served and why are on the answer, and the arm is told them too."""
    server = await _split(product)
    async with server.caller() as caller:
        answer = await caller.ask("/r/bid/more?x=1", X_User_Id="ann", Kingmaker_Arm="forged")
    token = answer["kingmaker-decision"]
    assert token is not None
    assert len(token) <= 160
    assert answer["kingmaker-reason"] == "SPLIT"
    assert answer.all("kingmaker-arm") == [{b'{"arm": "old"}': "old", b'{"arm": "new"}': "new"}[answer.body]]
    assert answer["kingmaker-assigned-arm"] is None
    [seen] = [seen for arm in product.arms for seen in arm.seen]
    assert seen.line.startswith("GET /score/more?x=1 ")
    assert seen.all("kingmaker-arm") == [answer["kingmaker-arm"]]
    assert (seen["kingmaker-decision"], seen["kingmaker-route"]) == (token, "bid")


async def test_outcomes_are_in_the_metrics_once_within_five_seconds(product: Product) -> None:
    """40 decisions, 40 outcomes posted twice over: 40 are counted, on the arms that were assigned."""
    server = await _split(product)
    async with server.caller() as caller:
        decided = [await caller.decide(unit) for unit in units(40)]
        outcomes = [converted(token, number % 2) for number, (_, token) in enumerate(decided)]
        answers = [await caller.report(outcomes) for _ in range(2)]
    assert [answer.status for answer in answers] == [202, 202]
    arms = Counter(arm for arm, _ in decided)
    ones = Counter(arm for number, (arm, _) in enumerate(decided) if number % 2)
    wanted = {arm: Totals(count, count, float(ones[arm])) for arm, count in arms.items()}
    took = await eventually(server.totals, lambda totals: totals == wanted, seconds=8)
    assert took < 5
    await asyncio.sleep(1.2)
    assert await server.totals() == wanted


async def test_changes_reach_the_gateway_within_a_second(
    product: Product, record_property: Callable[[str, object], None]
) -> None:
    """Split, kill switch and promotion change who answers, within the bound, one after the other."""
    server = await _split(product)
    seconds: dict[str, float] = {}
    async with server.caller() as caller:

        async def reason_and_arms() -> tuple[str | None, set[str | None]]:
            answers = [await caller.ask(X_User_Id=unit) for unit in units(12)]
            return answers[0]["kingmaker-reason"], {answer["kingmaker-arm"] for answer in answers}

        async def change(
            name: str, method: str, path: str, body: dict[str, object], reason: str, arm: str
        ) -> None:
            await server.api(method, f"/routes/bid/{path}", body)
            seconds[name] = await eventually(
                reason_and_arms, lambda seen: seen == (reason, {arm}), BOUND_SECONDS
            )

        assert await reason_and_arms() == ("SPLIT", {"old", "new"})
        await change("split", "PUT", "split", {"weights": {"new": 10_000}}, "STATIC", "new")
        await change("kill", "PUT", "kill-switch", {"reason": "r"}, "KILL_SWITCH", "old")
        await server.api("DELETE", "/routes/bid/kill-switch")
        await change("promote", "POST", "rollout/promote", {"arm": "new", "reason": "r"}, "STATIC", "new")
    for name, took in seconds.items():
        record_property(f"seconds_{name}", round(took, 3))
        print(f"{name} took {took:.3f} s")
    assert (await server.api("GET", "/routes/bid/champion"))["champion"] == "new"


async def test_two_workers_agree_and_their_figures_add_up(product: Product) -> None:
    """Whichever worker takes a connection, a user gets the same arm, and every decision is counted once."""
    server = await _split(product, "--workers", "2")
    arms: dict[str, set[str]] = {unit: set() for unit in units(20)}
    tokens = []
    for _ in range(12):
        async with server.caller() as caller:
            for unit, seen in arms.items():
                arm, token = await caller.decide(unit)
                seen.add(arm)
                tokens.append(token)
            assert (await caller.report([converted(tokens[-1])])).status == 202
    assert {len(seen) for seen in arms.values()} == {1}
    total = Totals(decisions=240, n=12, total=12.0)
    await eventually(server.totals, lambda totals: counted(totals) == total)

    async def figures() -> str:
        async with httpx.AsyncClient(trust_env=False) as client:
            return (await client.get(f"{server.gateway}/metrics")).text

    await eventually(figures, lambda text: _sum_of(text, "kingmaker_outcomes_accepted_total") == 12)
    text = await figures()
    assert all(f'worker="{name}"' in text for name in ("w0", "w1"))
    spools = sorted(path.name for path in (server.data_dir / "spools").glob("*.db"))
    assert spools == ["w0.db", "w1.db"]


def _sum_of(figures: str, name: str) -> float:
    """A counter's sum over its labels."""
    return sum(float(line.split()[-1]) for line in figures.splitlines() if line.startswith(f"{name}{{"))
