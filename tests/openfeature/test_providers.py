"""Claims about OpenFeature's own providers: what they ask of a running gateway, and make of its answers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from openfeature import api
from openfeature.client import OpenFeatureClient
from openfeature.contrib.provider.ofrep import OFREPProvider
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import ErrorCode
from openfeature.flag_evaluation import FlagEvaluationDetails, Reason

from tests.app.product import Server, eventually
from tests.openfeature.programs import Program, Programs, Said

USER = EvaluationContext("user-7", {"country": "DE", "cart": {"items": [1, 2]}})
ARMS = {"logreg-v6", "gbm-v7"}


@contextmanager
def python_client(url: str) -> Iterator[OpenFeatureClient]:
    """A client of the Python SDK, with the OFREP provider."""
    provider = OFREPProvider(url)
    api.set_provider(provider)
    try:
        yield api.get_client()
    finally:
        provider.session.close()
        api.clear_providers()


async def evaluated(
    client: OpenFeatureClient, flag: str, context: EvaluationContext | None = USER
) -> FlagEvaluationDetails[str]:
    """A flag as the application sees it, whose default is no arm."""
    return await asyncio.to_thread(client.get_string_details, flag, "none", context)


async def told(program: Program, name: str) -> Said:
    """What a program says of one evaluation."""
    details: Said = (await program.said(lambda said: name in said))[name]
    return details


async def test_the_python_provider_evaluates(server: Server) -> None:
    """Sticky by its targeting key, with the metadata of each decision; each evaluation is one."""
    with python_client(server.gateway) as client:
        told = [await evaluated(client, "bid") for _ in range(5)]
        sure = await evaluated(client, "sure")
    arm = told[0].value
    assert arm in ARMS
    assert {(one.value, one.variant, one.reason) for one in told} == {(arm, arm, Reason.SPLIT)}
    assert len({one.flag_metadata["decision"] for one in told}) == 5
    assert told[0].flag_metadata["propensity"] == 0.5
    assert (sure.value, sure.reason, sure.flag_metadata["reason"]) == ("logreg-v6", Reason.STATIC, "STATIC")
    await eventually(
        partial(server.totals, "bid"), lambda totals: totals[arm].decisions >= 5 if arm in totals else False
    )


async def test_the_python_provider_takes_the_default_where_there_is_no_answer(server: Server) -> None:
    """With the error that fits, and what was wrong."""
    with python_client(server.gateway) as client:
        unheard = await evaluated(client, "unheard")
        wrong = await asyncio.to_thread(client.get_boolean_details, "bid", False, USER)
        invalid = await evaluated(client, "bid", EvaluationContext(None, {"targetingKey": 7}))
    assert (unheard.value, unheard.error_code) == ("none", ErrorCode.FLAG_NOT_FOUND)
    assert (wrong.value, wrong.error_code) == (False, ErrorCode.TYPE_MISMATCH)
    assert (invalid.value, invalid.error_code) == ("none", ErrorCode.INVALID_CONTEXT)
    assert invalid.error_message == "targetingKey must be a string, got number"


async def test_the_python_provider_asks_a_gateway_without_a_snapshot_again(empty_gateway: str) -> None:
    """It takes the default, but no pause as it would where there was too much."""
    with python_client(empty_gateway) as client:
        answers = [await evaluated(client, "bid") for _ in range(2)]
    assert {(one.value, one.error_code) for one in answers} == {("none", ErrorCode.GENERAL)}
    assert all("no snapshot has been loaded yet" in str(one.error_message) for one in answers)


async def test_the_server_provider_evaluates(server: Server, programs: Programs) -> None:
    """JavaScript's: sticky or anew, certain or forced, and the default with the error that fits."""
    async with programs.running("server.mjs", GATEWAY=server.gateway, FLAG="bid") as program:
        sticky, again, nobody, sure, forced, unheard, wrong, invalid = [
            await told(program, name)
            for name in ("sticky", "again", "nobody", "sure", "forced", "unheard", "wrongType", "invalid")
        ]
        assert await program.ended() == (0, "")
    assert (sticky["value"], sticky["variant"], sticky["reason"]) == (again["value"], again["value"], "SPLIT")
    assert sticky["flagMetadata"]["decision"] != again["flagMetadata"]["decision"]
    assert {sticky["value"], nobody["value"]} <= ARMS
    assert (sure["value"], sure["reason"]) == ("logreg-v6", "STATIC")
    assert (forced["value"], forced["reason"]) == ("gbm-v7", "TARGETING_MATCH")
    errors = [(one["value"], one["errorCode"]) for one in (unheard, wrong, invalid)]
    assert errors == [("none", "FLAG_NOT_FOUND"), (False, "TYPE_MISMATCH"), ("none", "INVALID_CONTEXT")]


async def test_the_web_provider_polls_until_something_changes(server: Server, programs: Programs) -> None:
    """It keeps its answer by the tag, takes a kill switch at the next poll, asks anew for another user."""
    async with programs.running("web.mjs", GATEWAY=server.gateway, FLAG="polled") as page:
        first = await page.said()
        assert (first["status"], first["sent"]) == (200, None)
        ready = await page.said(lambda said: "ready" in said)
        polled = [await page.said(lambda said: "status" in said) for _ in range(3)]
        assert {tuple(one.values()) for one in polled} == {(304, first["etag"], first["etag"])}
        await server.api("PUT", "/routes/polled/kill-switch", {"reason": "test"})
        changed = await page.said(lambda said: "changed" in said and said["flag"]["reason"] == "STATIC")
        assert (changed["flag"]["value"], changed["unheard"]["errorCode"]) == (
            "logreg-v6",
            "FLAG_NOT_FOUND",
        )
        kept = await page.said(lambda said: "status" in said)
        await page.tell("user-8")
        asked = await page.said(lambda said: said.get("status") == 200)
        moved = await page.said(lambda said: "moved" in said)
        assert await page.ended() == (0, "")
    assert (ready["flag"]["value"] in ARMS, ready["flag"]["reason"]) == (True, "SPLIT")
    assert kept["status"] in (200, 304)
    assert asked["sent"] is None
    assert len({decision_of(said) for said in (ready, changed, moved)}) == 3


async def test_what_is_only_kept_is_no_decision(server: Server, programs: Programs) -> None:
    """Flags of a page that were evaluated, and never confirmed, are recorded nowhere."""
    async with programs.running("web.mjs", GATEWAY=server.gateway, FLAG="confirmed") as page:
        ready = await page.said(lambda said: "ready" in said)
        await page.said(lambda said: said.get("status") == 304)
    async with server.caller() as caller:
        answer = await caller.ask("/v1/exposures", {"decision": decision_of(ready)})
        assert answer.status == 202
    totals = partial(server.totals, "confirmed")
    await eventually(totals, lambda totals: sum(total.decisions for total in totals.values()) == 1)
    assert await server.totals("of-kept") == {}


async def test_a_page_shows_what_it_kept_while_the_gateway_has_no_snapshot(
    server: Server, programs: Programs, empty_gateway: str
) -> None:
    """The web provider takes our 503 for something that passes; the 500 of the protocol it would not."""
    gateways = {"GATEWAY": server.gateway, "EMPTY_GATEWAY": empty_gateway}
    async with programs.running("kept.mjs", **gateways, FLAG="bid") as page:
        first, second, third = [await page.said() for _ in range(3)]
        assert await page.ended() == (0, "")
    assert (first["reason"], second["reason"], third["reason"]) == ("SPLIT", "CACHED", "ERROR")
    assert first["value"] == second["value"] != third["value"]
    assert first["flagMetadata"] == second["flagMetadata"]


def decision_of(said: dict[str, Any]) -> str:
    """The token of what a page shows."""
    return str(said["flag"]["flagMetadata"]["decision"])
