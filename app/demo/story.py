"""The demonstration from its beginning to its end: a better challenger is crowned, a broken one is caught.

Nothing in it is scripted. Kingmaker runs as users run it, and whatever its policy does is what is shown.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import yaml
from rich.console import Console

from app.control.views import ChampionView, EntryView, EvaluationView
from app.demo.control import Control
from app.demo.dataset import load
from app.demo.endpoint import READY
from app.demo.errors import DemoFailed
from app.demo.models import Name
from app.demo.pages import passes, write
from app.demo.printout import Printout
from app.demo.programs import Program, Programs, kingmaker, python
from app.demo.progress import Progress
from app.demo.route import DAY_SECONDS, FIRST_SHARE, ROUTE, SHORTEST_DAYS, declaration
from app.demo.traffic import Tally, Traffic
from policies.types import Action

CHAMPION, CHALLENGER, BROKEN = Name.LOGREG, Name.GBM, Name.FOREST
FAIL_EVERY = 3
_FINAL = (Action.PROMOTE, Action.ROLLBACK, Action.END)
_POLL_SECONDS = 0.25
_JUDGED_LATE_SECONDS = 20.0
_BROKEN_SECONDS = 30.0
_AFTERWARDS_SECONDS = 1.0
_INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Ending:
    """How it ended, with everything that the policy did on the way."""

    seed: int
    seconds: float
    gateway: str
    control: str
    tally: Tally
    evaluations: tuple[EvaluationView, ...]
    timeline: tuple[EntryView, ...]
    champion: ChampionView

    def document(self) -> dict[str, Any]:
        """The ending as JSON has it."""
        return {
            "ok": True,
            "seed": self.seed,
            "seconds": round(self.seconds, 1),
            "gateway": self.gateway,
            "control_plane": self.control,
            "traffic": asdict(self.tally),
            "evaluations": [evaluation.model_dump(mode="json") for evaluation in self.evaluations],
            "timeline": [entry.model_dump(mode="json") for entry in self.timeline],
            "champion": self.champion.model_dump(mode="json"),
        }


def run(*, days: int, seed: int, keep: bool, json_output: bool) -> int:
    """Play the story; the exit code is 0 when it ended as it should.

    `days`: after how many of its short days the rollout gives up. `keep`: leave everything running until
    Ctrl-C, and the data for ever. `json_output`: one document at the end instead of the telling.
    """
    console = Console(highlight=False, quiet=json_output)
    try:
        with _signals(), _folder(keep) as folder, Programs(folder) as programs:
            ending = perform(Printout(console), programs, folder, days=days, seed=seed)
            if json_output:
                print(json.dumps(ending.document()), flush=True)
            Printout(console).next_steps(ending.gateway, ending.control, ROUTE, str(folder) if keep else None)
            if keep:
                _wait_for_interrupt()
    except DemoFailed as failure:
        return _failed(failure, seed, json_output)
    except KeyboardInterrupt:
        return _INTERRUPTED
    return 0


def perform(show: Printout, programs: Programs, folder: Path, *, days: int, seed: int) -> Ending:
    """Play the story with programs that run on afterwards.

    Raises:
        DemoFailed: it did not end as it should.
    """
    if days < SHORTEST_DAYS:
        raise DemoFailed(
            f"days must be at least {SHORTEST_DAYS}, so that a promotion can be earned, got {days}"
        )
    return asyncio.run(_Story(show, programs, folder, days, seed).tell())


class _Story:
    """Mutable state: the evaluations seen so far."""

    def __init__(self, show: Printout, programs: Programs, folder: Path, days: int, seed: int) -> None:
        self._show = show
        self._programs = programs
        self._folder = folder
        self._days = days
        self._seed = seed
        self._seen: list[EvaluationView] = []

    async def tell(self) -> Ending:
        began = time.monotonic()
        split = load(self._seed)
        self._show.introduction(split, self._seed, self._days)
        training = self._folder / "training.json"
        write(split.training, training)
        urls = await self._endpoints(training)
        server, gateway, address = await self._kingmaker(urls[CHAMPION])
        self._show.addresses(gateway, address)
        control = Control(address)
        traffic = Traffic(gateway, passes(split.live, self._seed), self._seed)
        try:
            async with traffic:
                await self._promotion(control, traffic, urls[CHALLENGER])
                await self._rescue(control, traffic, urls[BROKEN])
            return await self._ending(control, traffic, gateway, time.monotonic() - began)
        except DemoFailed as failure:
            raise DemoFailed(str(failure), failure.log or server.tail()) from failure
        finally:
            await control.close()

    async def _endpoints(self, training: Path) -> dict[Name, str]:
        """Start the model endpoints, all at once; gives their URLs."""
        started = {name: self._programs.start(name, _endpoint(name, training, self._seed)) for name in Name}
        return {name: await program.says(rf"{READY}(\S+)") for name, program in started.items()}

    async def _kingmaker(self, champion: str) -> tuple[Program, str, str]:
        """Start Kingmaker as a user would; gives the URLs of its gateway and its control plane."""
        config = self._folder / "route.yaml"
        declared = declaration(CHAMPION.value, champion, self._days)
        config.write_text(yaml.safe_dump(declared, sort_keys=False), "utf-8")
        ports = ("--gateway-port", "0", "--control-port", "0")
        data = ("--data-dir", str(self._folder / "data"))
        server = self._programs.start("kingmaker", kingmaker("serve", "--config", str(config), *data, *ports))
        control = await server.says(r"control plane +(http://\S+)")
        return server, await server.says(r"gateway +(http://\S+)"), control

    async def _promotion(self, control: Control, traffic: Traffic, url: str) -> None:
        """The better challenger is registered, judged day by day, and promoted by the rule."""
        await control.register(CHALLENGER, url)
        await control.start(CHALLENGER, FIRST_SHARE, "looks at the whole page")
        self._show.trial(CHAMPION, CHALLENGER, FIRST_SHARE)
        patience = (self._days + 1) * DAY_SECONDS + _JUDGED_LATE_SECONDS
        final = await self._verdict(control, traffic, patience)
        rollout = await control.rollout()
        if final.action is not Action.PROMOTE or rollout.champion != CHALLENGER:
            raise DemoFailed(f"{CHALLENGER} was not promoted: {final.action.value}, {final.reason}")
        self._show.crowned(final)

    async def _rescue(self, control: Control, traffic: Traffic, url: str) -> None:
        """A challenger that fails is registered, and loses its traffic to its guardrail."""
        before = traffic.tally.fallbacks
        await control.register(BROKEN, url)
        began = time.monotonic()
        await control.start(BROKEN, FIRST_SHARE, "trained on the same pages")
        self._show.broken(BROKEN, FAIL_EVERY, FIRST_SHARE)
        final = await self._verdict(control, traffic, _BROKEN_SECONDS)
        took = time.monotonic() - began
        await asyncio.sleep(_AFTERWARDS_SECONDS)
        if final.action is not Action.ROLLBACK or final.kind != "guardrail":
            raise DemoFailed(
                f"{BROKEN} was not rolled back by its guardrail: {final.action.value}, {final.reason}"
            )
        self._show.saved(took, traffic.tally.fallbacks - before, traffic.tally)
        if traffic.tally.errors:
            raise DemoFailed(f"callers saw {traffic.tally.errors} errors, and should have seen none")

    async def _verdict(self, control: Control, traffic: Traffic, patience: float) -> EvaluationView:
        """Show every evaluation as it comes; gives the one that decides.

        Raises:
            DemoFailed: none did in time.
        """
        deadline = time.monotonic() + patience
        with Progress(self._show.console) as progress:
            while time.monotonic() < deadline:
                for evaluation in (await control.evaluations())[len(self._seen) :]:
                    self._seen.append(evaluation)
                    self._show.evaluation(evaluation)
                    if evaluation.action in _FINAL:
                        return evaluation
                traffic.check()
                progress.update(traffic.tally)
                await asyncio.sleep(_POLL_SECONDS)
        raise DemoFailed(f"the policy did not decide within {patience:g} s")

    async def _ending(self, control: Control, traffic: Traffic, gateway: str, seconds: float) -> Ending:
        timeline = tuple((await control.timeline()).timeline[::-1])
        champion = await control.champion()
        self._show.timeline(timeline, champion)
        return Ending(
            seed=self._seed,
            seconds=seconds,
            gateway=gateway,
            control=control.url,
            tally=traffic.tally,
            evaluations=tuple(self._seen),
            timeline=timeline,
            champion=champion,
        )


def _endpoint(name: Name, training: Path, seed: int) -> list[str]:
    told = ["--model", name, "--training", str(training), "--seed", str(seed)]
    broken = ["--fail-every", str(FAIL_EVERY)] if name is BROKEN else []
    return python("app.demo.endpoint", *told, *broken)


@contextmanager
def _folder(keep: bool) -> Iterator[Path]:
    """A folder for data and logs, which is removed at the end unless it is kept."""
    folder = Path(tempfile.mkdtemp(prefix="kingmaker-demo-"))
    try:
        yield folder
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _signals() -> Iterator[None]:
    """Being told to end, or losing the terminal, is taken like Ctrl-C: what was started is stopped first."""
    handlers = dict.fromkeys((signal.SIGTERM, signal.SIGHUP), _interrupt)
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(_: int, __: FrameType | None) -> None:
    signal.raise_signal(signal.SIGINT)


def _wait_for_interrupt() -> None:
    try:
        signal.pause()
    except KeyboardInterrupt:
        return


def _failed(failure: DemoFailed, seed: int, json_output: bool) -> int:
    if json_output:
        print(json.dumps({"ok": False, "seed": seed, "problem": str(failure)}), flush=True)
    if failure.log:
        print(failure.log, file=sys.stderr)
    print(f"kingmaker: the demonstration failed: {failure}", file=sys.stderr)
    return 1
