"""Claims about `/metrics`: readable by Prometheus, true, and bounded."""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families

from app.gateway.counters import Counters, is_openmetrics, render
from app.gateway.dumps import Dump
from app.gateway.families import FAMILIES, LATENCY_BOUNDS_S, Kind
from app.gateway.process import process_figures
from routing.types import Reason
from tests.app.gateway.stage import ArmServer, Stage, request

ROOT = Path(__file__).parents[3]


async def scraped(stage: Stage) -> dict[str, Metric]:
    """The metrics by name, as Prometheus' own parser reads them."""
    answer = await stage.ask(path="/metrics")
    assert answer["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return parsed(answer.body.decode())


def parsed(text: str) -> dict[str, Metric]:
    """The metrics by name; each name comes once."""
    families = list(text_string_to_metric_families(text))
    assert len(families) == len({family.name for family in families})
    return {family.name: family for family in families}


def of(counters: Counters) -> dict[str, Metric]:
    """What one worker has counted."""
    return parsed(render([counters.dump()]))


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
        if family.type == "counter" and sample.value and family.name.startswith("kingmaker_")
    }
    worker = ("worker", "w0")
    new, route = ("arm", "new"), ("route", "bid")
    assert (
        counted.items()
        >= {
            ("kingmaker_requests", new, ("code", "2xx"), ("reason", "STATIC"), route, worker): 1,
            ("kingmaker_requests", ("arm", "old"), ("code", "2xx"), ("reason", "FALLBACK"), route, worker): 1,
            ("kingmaker_fallbacks", new, route, worker): 1,
            ("kingmaker_upstream_errors", new, ("kind", "status"), route, worker): 1,
            ("kingmaker_unrouted_requests", worker): 1,
            ("kingmaker_refused_requests", ("code", "400"), worker): 1,
            ("kingmaker_outcomes_accepted", worker): 1,
            ("kingmaker_outcomes_rejected", ("code", "unknown_metric"), worker): 1,
        }.items()
    )
    assert families["kingmaker_snapshot_version"].samples[0].value == stage.version


async def test_counters_begin_at_zero(stage: Stage) -> None:
    """Of a route that has been asked, what alerts are made of is there before the first event."""
    stage.route(10_000)
    await stage.ask()
    families = await scraped(stage)
    for name in ("unrouted_requests", "outcomes_accepted", "fallbacks", "ejections"):
        assert {sample.value for sample in families[f"kingmaker_{name}"].samples} == {0}


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
    samples = (await scraped(stage))["kingmaker_request_duration_seconds"].samples
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
        counters.series("bid", "old").observe("SPLIT", 200, 0.002)
    families = parsed(render(counters.dump() for counters in workers))
    unrouted = families["kingmaker_unrouted_requests"]
    assert {sample.labels["worker"]: sample.value for sample in unrouted.samples} == {"w0": 2, "w1": 1}
    counts = [s for s in families["kingmaker_request_duration_seconds"].samples if s.name.endswith("_count")]
    assert {sample.labels["worker"]: sample.value for sample in counts} == {"w0": 1, "w1": 1}


def test_a_worker_reads_what_another_wrote() -> None:
    """A dump is the same after it has been on disk, as JSON."""
    counters = Counters("w0")
    counters.series("bid", "old").observe(Reason.SPLIT, 200, 0.002)
    counters.set("kingmaker_snapshot_age_seconds", 1.25)
    dump = counters.dump()
    assert msgspec.json.decode(msgspec.json.encode(dump), type=Dump) == dump


def test_an_arm_is_counted_under_its_own_labels() -> None:
    """Answers by reason and class of status, both histograms, what is in flight, and all else of the arm."""
    counters = Counters("w0")
    arm = counters.series("bid", "old")
    arm.in_flight += 2
    arm.observe(Reason.SPLIT, 200, 0.002)
    arm.observe("SPLIT", 204, 0.002)
    arm.observe(Reason.FALLBACK, 503, 20.0)
    arm.observe(Reason.SPLIT, 0, 0.1)
    arm.observe_upstream(0.004)
    arm.add("kingmaker_retries_total", "why", "stale", by=2)
    arm.set("kingmaker_arm_ejected", 1)
    families = of(counters)
    labels = {"route": "bid", "arm": "old", "worker": "w0"}
    requests = {
        (sample.labels["reason"], sample.labels["code"]): sample.value
        for sample in families["kingmaker_requests"].samples
    }
    assert requests == {("SPLIT", "2xx"): 2, ("FALLBACK", "5xx"): 1, ("SPLIT", "none"): 1}
    assert families["kingmaker_requests_in_flight"].samples[0][1:3] == (labels, 2)
    assert families["kingmaker_retries"].samples[0][1:3] == ({**labels, "why": "stale"}, 2)
    assert families["kingmaker_arm_ejected"].samples[0][1:3] == (labels, 1)
    whole = families["kingmaker_request_duration_seconds"].samples
    upstream = families["kingmaker_upstream_duration_seconds"].samples
    assert [s.value for s in whole if s.labels.get("le") in ("10.0", "+Inf")] == [3, 4]
    assert [s.value for s in upstream if s.labels.get("le") in ("0.0025", "0.005", "+Inf")] == [0, 1, 1]


def test_an_arm_is_looked_up_once() -> None:
    """The same route and arm are the same object, so an exchange may keep it."""
    counters = Counters("w0")
    assert counters.series("bid", "old") is counters.series("bid", "old")
    assert counters.series("bid", "old") is not counters.series("ads", "old")


def test_values_are_exact() -> None:
    """Neither large counts nor fractions lose digits on their way into the text."""
    counters = Counters("w0")
    counters.add("kingmaker_outcomes_accepted_total", by=123_456_789)
    counters.set("kingmaker_snapshot_age_seconds", 0.1 + 0.2)
    families = of(counters)
    assert families["kingmaker_outcomes_accepted"].samples[0].value == 123_456_789
    assert families["kingmaker_snapshot_age_seconds"].samples[0].value == 0.1 + 0.2


@given(st.text(min_size=1, max_size=30))
def test_labels_are_escaped(name: str) -> None:
    """A label may hold anything, and is read as it was."""
    counters = Counters("w0")
    counters.add("kingmaker_missing_units_total", "route", name)
    line = next(line for line in render([counters.dump()]).split("\n") if line.startswith("kingmaker_miss"))
    [family] = text_string_to_metric_families(line + "\n")
    assert family.samples[0].labels == {"route": name, "worker": "w0"}


def test_the_number_of_arms_is_bounded() -> None:
    """Beyond it, arms are counted together under `other`, and each overflow is counted."""
    counters = Counters("w0", arms_limit=3)
    for number in range(10):
        counters.series("bid", f"arm-{number}").observe("SPLIT", 200, 0.001)
    families = of(counters)
    told = {
        (sample.labels["route"], sample.labels["arm"]): sample.value
        for sample in families["kingmaker_requests"].samples
    }
    assert told == {("bid", f"arm-{n}"): 1 for n in range(3)} | {("other", "other"): 7}
    assert families["kingmaker_series_overflows"].samples[0].value == 7


def test_the_number_of_series_is_bounded() -> None:
    """Beyond it, whatever has labels is counted under `other`; what has none is always counted as it is."""
    counters = Counters("w0", series_limit=3)
    for number in range(10):
        counters.add("kingmaker_missing_units_total", "route", f"route-{number}")
    counters.add("kingmaker_unrouted_requests_total")
    families = of(counters)
    told = {sample.labels["route"]: sample.value for sample in families["kingmaker_missing_units"].samples}
    assert told == {f"route-{n}": 1 for n in range(3)} | {"other": 7}
    assert families["kingmaker_unrouted_requests"].samples[0].value == 1


def test_what_is_gone_makes_room() -> None:
    """The figures of arms and routes that are no more stay until others need their place."""
    counters = Counters("w0", arms_limit=2, series_limit=8)
    for arm in ("a", "b"):
        counters.series("bid", arm).observe("SPLIT", 200, 0.001)
        counters.add("kingmaker_fallbacks_total", "route", "bid", "arm", arm)
    counters.add("kingmaker_missing_units_total", "route", "gone")
    counters.keep([("bid", "b"), ("bid", "c")])
    before = {sample.labels["arm"] for sample in of(counters)["kingmaker_requests"].samples}
    counters.series("bid", "c").observe("SPLIT", 200, 0.001)
    counters.add("kingmaker_fallbacks_total", "route", "bid", "arm", "c")
    families = of(counters)
    assert before == {"a", "b"}
    assert {sample.labels["arm"] for sample in families["kingmaker_requests"].samples} == {"b", "c"}
    assert {sample.labels["arm"] for sample in families["kingmaker_fallbacks"].samples} == {"b", "c"}
    assert "kingmaker_missing_units" not in families
    assert "kingmaker_series_overflows" not in families


def test_openmetrics_says_the_same() -> None:
    """The other format holds the same samples, and is read by its own, stricter parser."""
    counters = Counters("w0")
    counters.series("bid", "old").observe(Reason.SPLIT, 200, 0.002)
    counters.add("kingmaker_unrouted_requests_total")
    dump = counters.dump()
    text = render([dump], openmetrics=True)
    strict = {family.name: family for family in openmetrics_families(text)}  # type: ignore[no-untyped-call]
    plain = parsed(render([dump]))
    assert strict.keys() == plain.keys()
    for name, family in plain.items():
        assert [s[:3] for s in strict[name].samples] == [s[:3] for s in family.samples]


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        (b"", False),
        (b"*/*", False),
        (b"text/plain;version=0.0.4", False),
        (b"application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1", True),
        (b"text/plain, Application/OpenMetrics-Text", True),
        (b"application/openmetrics-text; q=0", False),
    ],
)
def test_openmetrics_is_for_who_asks(accept: bytes, wanted: bool) -> None:
    """Prometheus does; a browser does not."""
    assert is_openmetrics(accept) is wanted


def test_the_process_is_measured() -> None:
    """Time, memory, files and start are those of this very process."""
    figures = process_figures()
    with open(os.devnull):
        more = process_figures()
    assert 0 < figures["process_cpu_seconds_total"] <= sum(os.times()[:2]) + 1
    assert figures["process_start_time_seconds"] < time.time()
    assert more["process_open_fds"] == figures["process_open_fds"] + 1
    assert figures["process_open_fds"] <= figures["process_max_fds"]
    assert 2**20 < figures["process_resident_memory_bytes"] < 2**40
    assert set(figures) <= set(FAMILIES)


def test_every_metric_that_is_counted_is_declared() -> None:
    """A name that the gateway's code counts under, and that no family declares, would never be shown."""
    code = "\n".join(path.read_text() for path in (ROOT / "app/gateway").glob("*.py"))
    assert set(re.findall(r'"(kingmaker_[a-z_]+)"', code)) <= set(FAMILIES)


def test_names_follow_the_rules_of_prometheus() -> None:
    """Counters, and they alone, end in `_total`; histograms and durations are in seconds, sizes in bytes."""
    for name, family in FAMILIES.items():
        assert re.fullmatch(r"(kingmaker|process)_[a-z_]+", name)
        assert name.endswith("_total") is (family.kind is Kind.COUNTER)
        assert family.kind is not Kind.HISTOGRAM or name.endswith("_seconds")
        assert not re.search(r"_(ms|milliseconds|kb|mb)(_|$)", name)
        assert family.text.endswith(".")


def test_the_documentation_lists_every_metric() -> None:
    """With the labels it has, and nothing that there is not."""
    text = (ROOT / "docs/observability.md").read_text()
    row = r"^\| `((?:kingmaker|process)_[a-z_]+)` \| [a-z]+ \| ([^|]*) \|"
    listed = dict(re.findall(row, text, re.MULTILINE))
    labels = {name: tuple(re.findall(r"`([a-z]+)`", cell)) for name, cell in listed.items()}
    assert labels == {name: family.labels for name, family in FAMILIES.items()}
