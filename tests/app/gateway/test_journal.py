"""Claims about what is written down of an exchange beside its event: nothing unless wanted, and then all."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from app.gateway.access import AccessLog
from app.gateway.dialer import Dialer
from app.gateway.journal import Journal
from app.gateway.settings import GatewaySettings
from app.gateway.targets import Target
from app.gateway.tracing import Tracing
from app.gateway.trust import Trust
from tests.app.gateway.stage import ArmServer, Stage, limits, read_message, request, say_nothing, until

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
async def log(stage: Stage, tmp_path: Path) -> AsyncIterator[Path]:
    """Where the stage's worker writes its access log."""
    path = tmp_path / "access.log"
    journal(stage, access=AccessLog(str(path)))
    yield path
    await asyncio.to_thread(stage.worker.journal.close)


def journal(stage: Stage, **places: Any) -> None:
    """Writes down what the worker does from now on in these places, too."""
    worker = stage.worker
    worker.journal = Journal(stage.spool, worker.counters, worker.trust, **places)


async def lines(stage: Stage, log: Path) -> list[dict[str, Any]]:
    """What was written once everything was."""
    await asyncio.to_thread(stage.worker.journal.close)
    return [json.loads(line) for line in (await asyncio.to_thread(log.read_text)).splitlines()]


async def test_an_exchange_is_a_line(stage: Stage, log: Path) -> None:
    """Who asked for what, who answered and why, how much, how long; not the query, which may hold secrets."""
    stage.route(0)
    answer = await stage.ask("POST", "/r/bid/x?token=secret", b"12345")
    (line,) = await lines(stage, log)
    told: dict[str, Any] = {
        "route": "bid",
        "arm": "old",
        "assigned_arm": "old",
        "reason": "STATIC",
        "method": "POST",
    }
    told |= {"host": "gateway.test", "path": "/r/bid/x", "status": 200, "bytes_in": 5, "bytes_out": 2}
    told |= {"failure": None, "client": "127.0.0.1", "peer": "127.0.0.1", "trace": None}
    assert {name: line[name] for name in told} == told
    assert line["decision"] == answer["kingmaker-decision"]
    assert line["duration_ms"] > 0 < line["upstream_ms"]
    assert "secret" not in json.dumps(line)


async def test_a_fallback_says_why(stage: Stage, log: Path) -> None:
    """Both arms, and how the first one failed."""
    stage.route(10_000)
    stage.challenger.script = ArmServer.say(b"nonsense\r\n\r\n")
    await stage.ask()
    (line,) = await lines(stage, log)
    assert (line["arm"], line["assigned_arm"], line["reason"]) == ("old", "new", "FALLBACK")
    assert (line["status"], line["failure"]) == (200, "malformed")


async def test_the_arm_never_takes_longer_than_the_exchange(
    stage: Stage, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both count from the end of the request, also where that comes while the arm is still being dialled."""
    dial = Dialer.dial

    async def dial_slowly(dialer: Dialer, target: Target, factory: Any) -> Any:
        await asyncio.sleep(0.3)
        return await dial(dialer, target, factory)

    monkeypatch.setattr(Dialer, "dial", dial_slowly)
    stage.route(0)
    reader, writer = await stage.connect()
    whole = request("POST", body=b"12345")
    writer.write(whole[:-2])
    await asyncio.sleep(0.15)
    writer.write(whole[-2:])
    assert (await read_message(reader)).status == 200
    writer.close()
    (line,) = await lines(stage, log)
    assert 0 < line["upstream_ms"] <= line["duration_ms"] < 300


async def test_who_was_sent_to_the_champion_at_once_is_told_why(stage: Stage, log: Path) -> None:
    """The assigned arm was not asked, because it had been ejected."""
    stage.route(10_000)
    stage.challenger.script = ArmServer.say(b"nonsense\r\n\r\n")
    for _ in range(6):
        await stage.ask()
    assert [line["failure"] for line in await lines(stage, log)] == ["malformed"] * 5 + ["ejected"]


async def test_an_exchange_without_an_answer_is_a_line_too(stage: Stage, log: Path) -> None:
    """Of the gateway's own refusal with its status; of a caller that left without one."""
    stage.route(0, upstream=limits(timeout_ms=200))
    stage.champion.script = say_nothing
    await stage.ask()
    stage.route(0)
    _, writer = await stage.connect()
    writer.write(request())
    await until(lambda: len(stage.champion.seen) == 2)
    writer.transport.abort()
    await until(lambda: len(stage.spool.events) == 2)
    refused, left = await lines(stage, log)
    assert (refused["arm"], refused["status"], refused["failure"]) == (None, 504, "timeout")
    assert (left["arm"], left["status"], left["upstream_ms"]) == (None, 0, None)


async def test_without_a_log_nothing_is_written(stage: Stage) -> None:
    """And nothing is counted as lost."""
    stage.route(0)
    await stage.ask(traceparent=TRACEPARENT)
    assert (stage.worker.journal.lines_dropped, stage.worker.journal.spans_dropped) == (0, 0)
    assert stage.champion.seen[0]["traceparent"] == TRACEPARENT


async def test_each_attempt_is_a_span_of_the_trace(stage: Stage, log: Path) -> None:
    """Arms get the trace's id, each with a span of its own; strangers' ids are not taken over."""
    stage.worker.trust = Trust(GatewaySettings(traces="http://127.0.0.1:9"))
    tracing = Tracing("http://127.0.0.1:9", 0.0, "w0", Random(7))
    await asyncio.to_thread(stage.worker.journal.close)
    journal(stage, access=AccessLog(str(log)), tracing=tracing)
    stage.route(10_000)
    stage.challenger.script = ArmServer.say(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")
    await stage.ask(traceparent=TRACEPARENT)
    (line,) = await lines(stage, log)
    sent = [(arm.seen[0]["traceparent"] or "").split("-") for arm in (stage.challenger, stage.champion)]
    assert [parts[1] for parts in sent] == [line["trace"]] * 2
    assert len({parts[2] for parts in sent}) == 2
    assert re.fullmatch("[0-9a-f]{32}", line["trace"])
    assert line["trace"] not in TRACEPARENT
    assert [len(arm.seen[0].all("traceparent")) for arm in (stage.challenger, stage.champion)] == [1, 1]
