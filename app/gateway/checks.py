"""Does an arm say that it is well? It is asked at intervals, beside the traffic, on the same connections."""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote

from app.gateway.upstream import Attempt, Caller, Failure, UpstreamConnection
from routing.types import HealthCheck, Role

if TYPE_CHECKING:
    from app.gateway.answers import Answer
    from app.gateway.health import Fleet
    from app.gateway.snapshots import Routing
    from app.gateway.targets import Target

BODY_BYTES = 64 * 1024
"""The longest answer that is read to its end, for the sake of the connection."""

_PATH_SAFE = "/?&=%:;@!$'()*+,~"

_log = logging.getLogger(__name__)


class Attempts(Protocol):
    """What the checks need of the worker."""

    def attempt(self, caller: Caller, target: Target, deadline: float) -> Attempt: ...


class Checks:
    """The health checks of a worker's arms. `draw` gives numbers in [0, 1), to keep workers out of step."""

    def __init__(self, worker: Attempts, fleet: Fleet, draw: Callable[[], float]) -> None:
        self._worker = worker
        self._fleet = fleet
        self._draw = draw
        self._checks: dict[int, Check] = {}

    def __repr__(self) -> str:
        failing = sum(not check.passing for check in self._checks.values())
        return f"<Checks of {len(self._checks)} arms, {failing} failing>"

    def adopt(self, routing: Routing) -> None:
        """Checks the arms of another snapshot from now on. The fleet has to have adopted it before."""
        before, self._checks = self._checks, {}
        for arm_id, target in routing.targets.items():
            rules = target.limits.health_check
            if rules is None or target.arm.role is Role.RETIRED:
                continue
            check = before.get(arm_id)
            if check is None or check.target.arm.url != target.arm.url:
                check = Check(self._worker, self._fleet, self._draw, target, rules)
            else:
                check.apply(target, rules)
            self._checks[arm_id] = check
        for arm_id, check in before.items():
            if self._checks.get(arm_id) is not check:
                check.close()
                if arm_id not in self._checks:
                    self._fleet.of(arm_id).set_well(True, monotonic())

    def tick(self, now: float) -> None:
        """Asks the arms whose turn it is (monotonic seconds)."""
        for check in self._checks.values():
            if now >= check.due:
                check.ask(now)

    def close(self) -> None:
        """Asks nobody any more; what is under way is given up."""
        for check in self._checks.values():
            check.close()
        self._checks = {}


class Check:
    """The check of one arm: at most one question at a time, as the caller of an attempt of its own.

    Mutable state: when it is due, the attempt under way, what the arm has been found to be, and how many
    answers in a row say otherwise.
    """

    method = b"GET"

    def __init__(
        self, worker: Attempts, fleet: Fleet, draw: Callable[[], float], target: Target, rules: HealthCheck
    ) -> None:
        self.due = 0.0
        self.passing = True
        self._worker = worker
        self._fleet = fleet
        self._draw = draw
        self._asked = False
        self._attempt: Attempt | None = None
        self._deadline = 0.0
        self._read = 0
        self._otherwise = 0
        self.apply(target, rules)

    def __repr__(self) -> str:
        state = "passing" if self.passing else "failing"
        return f"<Check of {self.target.arm.name} {state}, {self._otherwise} answers otherwise>"

    def apply(self, target: Target, rules: HealthCheck) -> None:
        """Asks like this from now on; what it has found so far stands."""
        self.target = target
        self._rules = rules
        agent = b"" if b"user-agent" in target.overrides else b"User-Agent: kingmaker-health-check\r\n"
        path = b"/" + quote(rules.path.removeprefix("/"), safe=_PATH_SAFE).encode()
        head = b"GET %b HTTP/1.1\r\n%b%b%b\r\n"
        self._request = head % (path, target.host_line, target.lines, agent)

    def ask(self, now: float) -> None:
        """Asks the arm, unless it still owes an answer. The first time only chooses when to begin."""
        if self._attempt is not None:
            return
        seconds = self._rules.interval_ms / 1000
        if not self._asked:
            self._asked = True
            self.due = now + seconds * self._draw()
            return
        self.due = now + seconds * (0.9 + 0.2 * self._draw())
        self._read = 0
        self._deadline = now + self._rules.timeout_ms / 1000
        self._attempt = attempt = self._worker.attempt(self, self.target, self._deadline)
        attempt.pool.acquire(attempt)

    def close(self) -> None:
        """Gives up what is under way."""
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.cancel()

    def on_connected(self, attempt: Attempt, connection: UpstreamConnection) -> None:
        connection.send(self._request, last=True)

    def on_answer(self, attempt: Attempt, answer: Answer) -> None:
        """There is more of the answer. However much comes, it has the same deadline."""
        attempt.deadline = self._deadline
        self._read += sum(map(len, answer.take_body()))
        if not answer.complete:
            if self._read <= BODY_BYTES:
                return
            attempt.cancel()
        self._attempt = None
        self._judge(200 <= answer.status < 300)

    def on_failure(self, attempt: Attempt, failure: Failure) -> None:
        """There is no answer. A kept connection that the arm has closed is no fault of it: ask again at once.

        That no connection is free says nothing about the arm.
        """
        self._attempt = None
        if failure is Failure.CUT_OFF and attempt.is_stale:
            self.due = 0.0
        elif failure is not Failure.BUSY:
            self._judge(False)

    def pause_request(self) -> None:
        """The request is sent in one piece, and there is nothing to pause."""

    def resume_request(self) -> None:
        """As there is nothing to pause, there is nothing to resume."""

    def is_sending(self) -> bool:
        return False

    def _judge(self, good: bool) -> None:
        if good is self.passing:
            self._otherwise = 0
            return
        self._otherwise += 1
        if self._otherwise < (self._rules.successes if good else self._rules.failures):
            return
        self._otherwise = 0
        self.passing = good
        self._fleet.of(self.target.arm.id).set_well(good, monotonic())
        text = "arm passes its health check again" if good else "arm fails its health check"
        _log.warning(text, extra={"fields": {"arm": self.target.arm.name, "path": self._rules.path}})
