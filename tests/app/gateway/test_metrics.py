"""Claims about `/metrics`: readable by Prometheus, and true."""

from __future__ import annotations

import asyncio
import json

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from app.gateway.counters import LATENCY_BOUNDS_S, Counters, render
from tests.app.gateway.stage import ArmServer, Stage, request


async def scraped(stage: Stage) -> dict[str, Metric]:
    """The metrics by name, as Prometheus' own parser reads them."""
    answer = await stage.ask(path="/metrics")
    assert answer["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return {family.name: family for family in text_string_to_metric_families(answer.body.decode())}


async def traffic(stage: Stage) -> None:
    """One of everything that is counted."""
    stage.route(10_000)
    token = (await stage.ask())["kingmaker-decision"]
    stage.challenger.script = ArmServer.say(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")
    await stage.ask()
    await stage.ask(path="/elsewhere")
    await stage.send(b"nonsense\r\n\r\n")
    good = {"decision": token, "metric": "profit", "value": 1}
    outcomes = {"outcomes": [good, {**good, "metric": "unheard"}]}
    await stage.ask("POST", "/v1/outcomes", json.dumps(outcomes).encode())


async def test_everything_is_counted_once(stage: Stage) -> None:
    """Each event raises its own counter by one, under labels that say which."""
    await traffic(stage)
    families = await scraped(stage)
    counted = {
        (family.name, *sorted(sample.labels.items())): sample.value
        for family in families.values()
        for sample in family.samples
        if family.type == "counter" and sample.value
    }
    worker = ("worker", "w0")
    new, route = ("arm", "new"), ("route", "bid")
    assert counted == {
        ("kingmaker_requests", new, ("code", "2xx"), ("reason", "STATIC"), route, worker): 1,
        ("kingmaker_requests", ("arm", "old"), ("code", "2xx"), ("reason", "FALLBACK"), route, worker): 1,
        ("kingmaker_fallbacks", new, route, worker): 1,
        ("kingmaker_upstream_errors", new, ("kind", "status"), route, worker): 1,
        ("kingmaker_unrouted_requests", worker): 1,
        ("kingmaker_refused_requests", ("code", "400"), worker): 1,
        ("kingmaker_outcomes_accepted", worker): 1,
        ("kingmaker_outcomes_rejected", ("code", "unknown_metric"), worker): 1,
    }
    assert families["kingmaker_snapshot_version"].samples[0].value == stage.version


async def test_every_metric_is_explained(stage: Stage) -> None:
    """Each has a help text and a type, and a counter's samples end in `_total`."""
    await traffic(stage)
    for family in (await scraped(stage)).values():
        assert family.documentation
        assert family.type in ("counter", "gauge", "histogram")
        for sample in family.samples:
            assert family.type != "counter" or sample.name == f"{family.name}_total"


async def test_latency_is_a_cumulative_histogram(stage: Stage) -> None:
    """Buckets grow, the last one holds all, and the sum is the time that was spent."""
    stage.route(0)

    async def late(_: object, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.03)
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    stage.champion.script = late
    for _ in range(3):
        await stage.send(request())
    samples = (await scraped(stage))["kingmaker_request_seconds"].samples
    buckets = [sample.value for sample in samples if sample.name.endswith("_bucket")]
    bounds = [float(sample.labels["le"]) for sample in samples if sample.name.endswith("_bucket")]
    values = {sample.name.rpartition("_")[2]: sample.value for sample in samples}
    assert bounds == [*LATENCY_BOUNDS_S, float("inf")]
    assert buckets == sorted(buckets)
    assert (buckets[bounds.index(0.025)], buckets[-1], values["count"]) == (0, 3, 3)
    assert values["sum"] >= 3 * 0.025


def test_workers_are_told_apart() -> None:
    """Figures of several workers are one text: each name is explained once, each series says whose it is."""
    workers = [Counters(name) for name in ("w1", "w0")]
    for count, counters in enumerate(workers, 1):
        counters.add("kingmaker_unrouted_requests_total", by=count)
        counters.exchange("bid", "old", "SPLIT", 200, 0.002)
    families = list(text_string_to_metric_families(render(counters.dump() for counters in workers)))
    assert len(families) == len({family.name for family in families}) == 3
    unrouted = next(family for family in families if family.name == "kingmaker_unrouted_requests")
    assert {sample.labels["worker"]: sample.value for sample in unrouted.samples} == {"w0": 2, "w1": 1}
