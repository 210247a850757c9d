"""How long does it take to choose an arm by 32 features? Processor time, beside other libraries of bandits.

No request is sent: this is what a bandit adds to one. Ours takes turns compiled and in pure Python; each has
a process of its own on the measured core.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import msgspec

from benchmarks.choosers import (
    ARMS,
    BATCH,
    KINGMAKER,
    MABWISER,
    NO_CONTEXT,
    VOWPAL_WABBIT,
    Offer,
    Question,
    between,
)
from benchmarks.contestants import PURE
from benchmarks.figures import Finding, Gap, MeasurementFailed, figure, ratio
from benchmarks.gateway import COMPILED, is_compiled
from benchmarks.gateway import missing as not_compiled
from benchmarks.plan import Plan
from benchmarks.processes import MEASURED_CORE, Process, process, python, tail

_SETTINGS = (*map(between, ARMS), NO_CONTEXT, BATCH)
_PACKAGES = {VOWPAL_WABBIT: "vowpalwabbit", MABWISER: "mabwiser"}
_TURNS_A_SECOND = 10
"""A choice takes microseconds, so a tenth of a round under load holds thousands of them."""

_WARM_SECONDS = 0.05

_Costs = dict[tuple[str, str], list[float]]
"""µs a choice in each round, by who chooses and in which way, of one setting; ours comes first."""


@dataclass(frozen=True, slots=True)
class Chooser:
    """A process that chooses when it is asked, in the ways that it has offered."""

    process: Process
    log: Path
    offer: Offer

    def cost_us(self, setting: str, way: str, seconds: float) -> float:
        """µs of processor time a choice, tried for so long.

        Raises:
            MeasurementFailed: the process has ended.
        """
        assert self.process.stdin is not None
        self.process.stdin.write(msgspec.json.encode(Question(setting, way, seconds)) + b"\n")
        self.process.stdin.flush()
        return msgspec.json.decode(_line(self.process, self.log), type=float)


def measure(plan: Plan) -> list[Finding]:
    """µs a choice, in batches choices a second, and ours over everybody else's."""
    gaps = [gap for gap in (not_compiled(), *map(_missing, _PACKAGES)) if gap]
    with ExitStack() as stack:

        def start(name: str, who: str, *, compiled: bool = False) -> Chooser:
            plan.say(f"starting {name}")
            return stack.enter_context(_chooser(plan.place(name), who, compiled=compiled))

        choosers = {KINGMAKER: start(KINGMAKER, KINGMAKER, compiled=is_compiled())}
        if is_compiled():
            choosers[PURE] = start(PURE, KINGMAKER)
        choosers |= {who: start(who, who) for who in _PACKAGES if _missing(who) is None}
        return [*(each for setting in _SETTINGS for each in _compared(plan, setting, choosers)), *gaps]


@contextmanager
def _chooser(folder: Path, who: str, *, compiled: bool) -> Iterator[Chooser]:
    log = folder / "chooser.log"
    command = python("-m", "benchmarks.choosers", who)
    with process(command, MEASURED_CORE, log, folder=COMPILED if compiled else None) as started:
        offer = msgspec.json.decode(_line(started, log), type=Offer)
        if offer.is_compiled is not compiled:
            raise MeasurementFailed(f"{who}: is_compiled must be {compiled}, got {offer.is_compiled}")
        yield Chooser(started, log, offer)


def _line(started: Process, log: Path) -> bytes:
    assert started.stdout is not None
    line = started.stdout.readline()
    if not line:
        raise MeasurementFailed(f"what chooses has ended: {tail(log)}")
    return line


def _missing(who: str) -> Gap | None:
    package = _PACKAGES[who]
    if find_spec(package):
        return None
    why = f"it is not installed: pip install --require-hashes -r requirements/bench.txt (PyPI {package})"
    return Gap(name=who, why=why)


def _compared(plan: Plan, setting: str, choosers: dict[str, Chooser]) -> list[Finding]:
    seconds = plan.seconds / _TURNS_A_SECOND
    turns = [
        (who, way)
        for who, chooser in choosers.items()
        for place, way in chooser.offer.ways
        if place == setting
    ]
    costs: _Costs = {turn: [] for turn in turns}
    for who, way in turns:
        choosers[who].cost_us(setting, way, _WARM_SECONDS)
    for number in range(plan.rounds):
        plan.say(f"{setting}, round {number + 1} of {plan.rounds}")
        for who, way in turns:
            costs[who, way].append(choosers[who].cost_us(setting, way, seconds))
    return _findings(setting, costs)


def _findings(setting: str, costs: _Costs) -> list[Finding]:
    """Pure Python is compared in each way of ours, a peer with the first of them."""
    first = next(iter(costs))
    unit = "µs"
    if setting == BATCH:
        costs, unit = {turn: [1e6 / cost for cost in each] for turn, each in costs.items()}, "choices/s"
    pairs = [((KINGMAKER, way), (who, way)) for who, way in costs if who == PURE]
    pairs += [(first, turn) for turn in costs if turn[0] in _PACKAGES]
    return [
        *(figure(f"{setting} · {', '.join(turn)}", unit, values) for turn, values in costs.items()),
        *(
            ratio(f"{setting} · {KINGMAKER} / {', '.join(theirs)}", costs[ours], costs[theirs])
            for ours, theirs in pairs
        ),
    ]
