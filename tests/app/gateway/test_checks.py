"""Claims about active health checks: what is asked, when, and what comes of the answers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from app.gateway.checks import BODY_BYTES, Check, Checks
from app.gateway.health import Admission, ArmHealth, Condition, Fleet
from routing.types import Arm, ArmHeader, HealthCheck, Role
from tests.app.gateway.stage import OK, ArmServer, Message, Stage, limits, say_nothing, until

ILL = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
TICK_SECONDS = 0.01


class Ward:
    """The stage, as far as the checks of its worker are concerned."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.fleet = stage.worker.fleet
        self.checks = stage.worker._checks

    @property
    def challenger(self) -> ArmHealth:
        return self.fleet.of(2)

    @property
    def check(self) -> Check:
        return self.checks._checks[2]

    @property
    def asked(self) -> list[Message]:
        """What the challenger was asked."""
        return self.stage.challenger.seen

    def adopt(self, *, arms: tuple[Arm, ...] | None = None, **rules: Any) -> None:
        """A snapshot in which the challenger is checked; without rules it is not."""
        check = HealthCheck(**{"path": "/health", "interval_ms": 20, "timeout_ms": 20_000, **rules})
        changes: dict[str, Any] = {"upstream": limits(health_check=check if rules else None)}
        if arms is not None:
            changes["arms"] = arms
        self.stage.route(0, **changes)


@pytest.fixture
def ward(stage: Stage) -> Ward:
    """The stage's worker and its checks."""
    return Ward(stage)


async def test_an_arm_is_asked_again_and_again(ward: Ward) -> None:
    """By GET, at its own host, with its own headers, over one connection; and it stays well."""
    url = f"http://127.0.0.1:{ward.stage.challenger.port}/v2?key=1"
    headers = (ArmHeader(name="Authorization", value="Bearer arm"),)
    champion, _ = ward.stage.arms()
    ward.adopt(
        arms=(champion, Arm(id=2, name="new", url=url, role=Role.CHALLENGER, headers=headers)),
        path="/health?deep=1",
    )
    await until(lambda: len(ward.asked) >= 5)
    first = ward.asked[0]
    assert first.line == "GET /health?deep=1 HTTP/1.1"
    assert first["host"] == f"127.0.0.1:{ward.stage.challenger.port}"
    assert first.all("authorization") == ["Bearer arm"]
    assert first.all("user-agent") == ["kingmaker-health-check"]
    assert ward.stage.challenger.connections == 1
    assert ward.challenger.admit(0.0) is Admission.YES


async def test_checks_are_in_no_account(ward: Ward) -> None:
    """They are no decisions, and no requests in the route's metrics."""
    ward.adopt(failures=3)
    await until(lambda: len(ward.asked) >= 5)
    assert ward.stage.spool.events == []
    assert ward.stage.counted("kingmaker_requests_total") == 0


@pytest.mark.parametrize(
    "answer",
    [
        ILL,
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n",
        b"well\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nok",
    ],
    ids=["5xx", "4xx", "redirect", "no HTTP", "malformed"],
)
async def test_an_arm_that_does_not_say_2xx_is_not_well(ward: Ward, answer: bytes) -> None:
    """After so many answers in a row it is barred, whatever it says instead."""
    ward.stage.challenger.script = ArmServer.say(answer)
    ward.adopt(failures=3)
    await until(lambda: ward.challenger.barred)
    assert ward.challenger.condition(0.0) is Condition.FAILING_CHECKS
    assert ward.challenger.ejections == 0
    assert repr(ward.checks) == "<Checks of 2 arms, 1 failing>"
    assert repr(ward.check).startswith("<Check of new failing, ")


async def test_only_a_row_counts(ward: Ward) -> None:
    """Two bad answers, a good one and two bad ones are no three in a row."""

    async def mixed(_: Message, writer: asyncio.StreamWriter) -> None:
        writer.write(OK if len(ward.asked) % 3 == 0 else ILL)

    ward.stage.challenger.script = mixed
    ward.adopt(failures=3)
    await until(lambda: len(ward.asked) >= 12)
    assert not ward.challenger.barred


async def test_an_arm_comes_back_after_good_answers_in_a_row(ward: Ward) -> None:
    """After as many as the rules say; not after the first."""
    ward.stage.challenger.script = ArmServer.say(ILL)
    ward.adopt(failures=1, successes=3)
    await until(lambda: ward.challenger.barred)
    barred_while: list[bool] = []

    async def count(_: Message, writer: asyncio.StreamWriter) -> None:
        barred_while.append(ward.challenger.barred)
        writer.write(OK)

    ward.stage.challenger.script = count
    await until(lambda: not ward.challenger.barred)
    assert barred_while.count(True) == 3


async def test_an_arm_that_cannot_be_reached_is_not_well(ward: Ward) -> None:
    """And is again when it has come back."""
    ward.adopt(failures=2)
    await until(lambda: len(ward.asked) >= 1)
    await ward.stage.challenger.stop()
    await until(lambda: ward.challenger.barred)
    await ward.stage.challenger.start()
    await until(lambda: not ward.challenger.barred)


async def test_an_arm_that_hangs_is_asked_once_at_a_time(ward: Ward) -> None:
    """While it owes an answer nothing more is asked; each answer that does not come in time is a bad one."""
    at_once: list[int] = []

    async def count(_: Message, __: asyncio.StreamWriter) -> None:
        at_once.append(len(ward.stage.challenger.open))

    ward.stage.challenger.script = count
    ward.adopt(failures=3, timeout_ms=200)
    await until(lambda: ward.challenger.barred)
    assert len(at_once) >= 3
    assert set(at_once) == {1}


async def test_an_answer_that_drips_is_too_late(ward: Ward) -> None:
    """A 200 whose body never ends is no answer in time, however often a byte of it comes."""

    async def drip(_: Message, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"x")
            await asyncio.sleep(0.01)

    ward.stage.challenger.script = drip
    ward.adopt(failures=1, timeout_ms=200)
    await until(lambda: ward.challenger.barred)


async def test_a_long_answer_is_not_read_to_its_end(ward: Ward) -> None:
    """Its status is enough; its connection is closed."""

    async def flood(_: Message, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n" + b"x" * (2 * BODY_BYTES))

    ward.stage.challenger.script = flood
    ward.adopt(failures=1)
    await until(lambda: len(ward.asked) >= 3)
    assert not ward.challenger.barred


async def test_a_kept_connection_that_was_closed_is_no_bad_answer(ward: Ward) -> None:
    """An arm that ends its connections between two checks is asked again on another one."""

    async def every_other(_: Message, writer: asyncio.StreamWriter) -> None:
        if len(ward.asked) % 2:
            writer.write(OK)
        else:
            writer.close()

    ward.stage.challenger.script = every_other
    ward.adopt(failures=1)
    await until(lambda: len(ward.asked) >= 10)
    assert not ward.challenger.barred


async def test_a_full_pool_is_no_bad_answer(ward: Ward) -> None:
    """That no connection is free says nothing about the arm, so nothing is concluded."""
    stage = ward.stage
    stage.challenger.script = say_nothing
    check = HealthCheck(path="/health", interval_ms=300, timeout_ms=100, failures=1)
    stage.route(10_000, upstream=limits(max_connections=1))
    _, writer = await stage.connect()
    writer.write(b"GET /r/bid HTTP/1.1\r\nHost: a\r\n\r\n")
    await until(lambda: len(ward.asked) == 1)
    stage.route(10_000, upstream=limits(health_check=check, max_connections=1))
    waited = 0

    def has_waited() -> bool:
        nonlocal waited
        waited += ward.check._attempt is not None
        return waited > 3 and ward.check._attempt is None

    await until(has_waited)
    assert not ward.challenger.barred
    assert [message.line for message in ward.asked] == ["GET /v2 HTTP/1.1"]


async def test_checks_follow_the_snapshot(ward: Ward) -> None:
    """Rules that change apply, and what was found stands; an arm no longer checked is well."""
    ward.stage.challenger.script = ArmServer.say(ILL)
    ward.adopt(failures=1)
    await until(lambda: ward.challenger.barred)
    check = ward.check
    ward.adopt(path="/live")
    await until(lambda: ward.asked[-1].line == "GET /live HTTP/1.1")
    assert ward.check is check
    assert ward.challenger.barred
    ward.adopt()
    assert ward.checks._checks == {}
    assert not ward.challenger.barred


async def test_an_arm_that_moved_is_checked_anew(ward: Ward) -> None:
    """What was found was found at the other address, and what is under way there is given up."""
    ward.stage.challenger.script = say_nothing
    ward.adopt(failures=1)
    await until(lambda: len(ward.asked) == 1)
    before, attempt = ward.check, ward.check._attempt
    assert attempt is not None
    moved = f"http://127.0.0.1:{ward.stage.champion.port}/v3"
    champion, _ = ward.stage.arms()
    ward.adopt(arms=(champion, Arm(id=2, name="new", url=moved, role=Role.CHALLENGER)), failures=1)
    assert ward.check is not before
    assert attempt.over
    await until(lambda: len(ward.stage.champion.seen) >= 4)
    assert not ward.challenger.barred


async def test_retired_arms_are_left_alone(ward: Ward) -> None:
    """An arm that is out of service is not asked how it is; a shadow is."""
    champion, challenger = ward.stage.arms()
    url = f"http://127.0.0.1:{ward.stage.challenger.port}"
    retired = Arm(id=3, name="gone", url=url, role=Role.RETIRED)
    shadow = Arm(id=4, name="copy", url=url, role=Role.SHADOW)
    ward.adopt(arms=(champion, challenger, retired, shadow), failures=1)
    assert sorted(ward.checks._checks) == [1, 2, 4]


async def test_closing_gives_up_what_is_under_way(ward: Ward) -> None:
    """Nobody is asked afterwards, and nothing that still comes is heard."""
    ward.stage.challenger.script = say_nothing
    ward.adopt(failures=1)
    await until(lambda: len(ward.asked) == 1)
    attempt = ward.check._attempt
    assert attempt is not None
    ward.checks.close()
    assert attempt.over
    assert repr(ward.checks) == "<Checks of 0 arms, 0 failing>"


@pytest.mark.parametrize(
    ("draw", "first", "second"), [(0.0, 100.0, 109.0), (0.5, 105.0, 115.0), (0.75, 107.5, 118.0)]
)
async def test_workers_do_not_beat_in_step(ward: Ward, draw: float, first: float, second: float) -> None:
    """The first check comes at a drawn moment within an interval, the others within a tenth around it."""
    rules = HealthCheck(path="/health", interval_ms=10_000)
    ward.stage.route(0, upstream=limits(health_check=rules))
    checks = Checks(ward.stage.worker, Fleet(), lambda: draw)
    assert ward.stage.worker.routing is not None
    checks.adopt(ward.stage.worker.routing)
    checks.tick(100.0)
    assert {check.due for check in checks._checks.values()} == {first}
    checks.tick(first)
    assert {check.due for check in checks._checks.values()} == {second}
    checks.close()


async def test_a_path_is_sent_as_one_line(ward: Ward) -> None:
    """What may not stand in a request line is escaped."""
    ward.adopt(path="/a b\r\nX: 1/ü%20?q=1")
    await until(lambda: len(ward.asked) >= 1)
    assert ward.asked[0].line == "GET /a%20b%0D%0AX:%201/%C3%BC%20?q=1 HTTP/1.1"
    assert ward.asked[0]["x"] is None
