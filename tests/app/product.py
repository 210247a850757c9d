"""What tests of the whole product stand on: `kingmaker serve` as its users start it, arms, and callers."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx

from tests.app.gateway.stage import ArmServer, Message, read_message, request

READY_SECONDS = 60.0
ENDS_SECONDS = 30.0
ANSWER_SECONDS = 20.0
_LOOK_SECONDS = 0.02

_Found = TypeVar("_Found")
Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process has ended, and what it had said."""

    code: int
    stdout: str
    stderr: str

    @property
    def problem(self) -> str:
        """What it said to its user before it gave up: the last line on stderr."""
        return self.stderr.splitlines()[-1]


class Caller:
    """A connection to a gateway that is kept alive."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def ask(
        self, path: str = "/r/bid", body: Document | None = None, method: str | None = None, **headers: str
    ) -> Message:
        """One request; header names are written with `_` for `-`."""
        content = None if body is None else json.dumps(body).encode()
        self._writer.write(request(method or ("GET" if body is None else "POST"), path, content, **headers))
        async with asyncio.timeout(ANSWER_SECONDS):
            return await read_message(self._reader)

    async def arm_of(self, unit: str) -> str:
        """Which arm answers a unit."""
        answer = await self.ask(X_User_Id=unit)
        assert answer.status == 200, answer
        return str(answer["kingmaker-arm"])

    async def decide(self, unit: str) -> tuple[str, str]:
        """The arm that answers a unit, and the token of the decision."""
        answer = await self.ask(X_User_Id=unit)
        assert answer.status == 200, answer
        return str(answer["kingmaker-arm"]), str(answer["kingmaker-decision"])

    async def report(self, outcomes: Sequence[Document]) -> Message:
        """Post outcomes."""
        return await self.ask("/v1/outcomes", {"outcomes": list(outcomes)})

    async def close(self) -> None:
        """End the connection."""
        self._writer.close()
        await asyncio.sleep(0)


@dataclass
class Totals:
    """What the control plane has measured of an arm, over all days."""

    decisions: int = 0
    n: int = 0
    total: float = 0.0


class Server:
    """A running `kingmaker serve`."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path, number: int) -> None:
        self.process = process
        self.data_dir = folder / "data"
        self.gateway = ""
        self.control = ""
        self._stdout, self._stderr = (folder / f"{name}.{number}" for name in ("out", "err"))
        self._workers: set[int] = set()

    @property
    def stdout(self) -> str:
        """What it has said on its standard output."""
        return self._stdout.read_text("utf-8")

    @property
    def stderr(self) -> str:
        """What it has said on its standard error."""
        return self._stderr.read_text("utf-8")

    async def ready(self) -> None:
        """Wait until it has said where it listens."""
        await until(lambda: "control plane  http" in self.stdout or self._over(), READY_SECONDS)
        assert not self._over(), self.stderr
        for line in self.stdout.splitlines():
            match line.split():
                case ["kingmaker:", "gateway", url]:
                    self.gateway = url
                case ["kingmaker:", "control", "plane", url, *_]:
                    self.control = url
                case _:
                    pass
        self.workers()

    def workers(self) -> list[int]:
        """The process ids of its gateway workers that run now."""
        found = sorted(pid for pid, parent in processes() if parent == self.process.pid)
        self._workers.update(found)
        return found

    @asynccontextmanager
    async def caller(self) -> AsyncIterator[Caller]:
        """A connection to the gateway."""
        host, _, port = self.gateway.removeprefix("http://").rpartition(":")
        caller = Caller(*await asyncio.open_connection(host, int(port)))
        try:
            yield caller
        finally:
            await caller.close()

    async def api(self, method: str, path: str, body: Document | None = None, key: str = "") -> Document:
        """One call to the control plane, which must succeed."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        async with httpx.AsyncClient(base_url=self.control, trust_env=False, timeout=30) as client:
            answer = await client.request(method, f"/v1{path}", json=body, headers=headers)
        assert answer.is_success, answer.text
        return dict(answer.json()) if answer.content else {}

    async def totals(self, route: str = "bid", metric: str = "conversion") -> dict[str, Totals]:
        """What the control plane has measured, by arm."""
        totals: dict[str, Totals] = {}
        for day in (await self.api("GET", f"/routes/{route}/metrics"))["days"]:
            arm = totals.setdefault(day["arm"], Totals())
            arm.decisions += day["decisions"]
            for parts in (day["metrics"], day["late"]):
                arm.n += parts.get(metric, {"n": 0})["n"]
                arm.total += parts.get(metric, {"sum": 0.0})["sum"]
        return totals

    async def ended(self, seconds: float = ENDS_SECONDS) -> Ended:
        """Wait for its end; its workers' too."""
        await until(self._over, seconds)
        await until(lambda: not self.left_behind(), seconds)
        return Ended(self.process.returncode, self.stdout, self.stderr)

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> Ended:
        """Tell it to end, and wait."""
        self.process.send_signal(number)
        return await self.ended()

    def left_behind(self) -> set[int]:
        """Workers that it once had, and that still run."""
        return self._workers & {pid for pid, _ in processes()}

    def kill(self) -> None:
        """End it and all its workers at once; no harm where they have ended."""
        for pid in (self.process.pid, *self.workers(), *self.left_behind()):
            if pid in {running for running, _ in processes()}:
                os.kill(pid, signal.SIGKILL)
        self.process.wait(ENDS_SECONDS)

    def _over(self) -> bool:
        return self.process.poll() is not None


@dataclass
class Product:
    """A folder in which servers run one after the other over the same data, and the arms behind them."""

    folder: Path
    servers: list[Server] = field(default_factory=list)
    arms: list[ArmServer] = field(default_factory=list)

    async def arm(self, name: str) -> ArmServer:
        """A model endpoint that answers with its name."""
        arm = ArmServer()
        arm.script = ArmServer.say(answer_of(name))
        await arm.start()
        self.arms.append(arm)
        return arm

    async def serve(self, *flags: str, routes: Sequence[Document] | None = None) -> Server:
        """Start a server on any free ports and wait until it listens."""
        config = [] if routes is None else ["--config", str(self.write({"routes": list(routes)}))]
        server = self.start("--gateway-port", "0", "--control-port", "0", *config, *flags)
        await server.ready()
        return server

    async def refusal(self, *flags: str) -> Ended:
        """Start a server that must not come up, and wait for its end."""
        return await self.start("--gateway-port", "0", "--control-port", "0", *flags).ended()

    def start(self, *flags: str) -> Server:
        """Start a server."""
        number = len(self.servers)
        command = [kingmaker(), "serve", "--data-dir", str(self.folder / "data"), *flags]
        with (
            (self.folder / f"out.{number}").open("wb") as out,
            (self.folder / f"err.{number}").open("wb") as err,
        ):
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        self.servers.append(Server(process, self.folder, number))
        return self.servers[-1]

    def write(self, content: object) -> Path:
        """A configuration file; text is taken as it is."""
        path = self.folder / "routes.yaml"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    async def close(self) -> None:
        """End whatever still runs."""
        for server in self.servers:
            server.kill()
        for arm in self.arms:
            await arm.stop()
        await asyncio.sleep(0)


def kingmaker() -> str:
    """The command that a user types."""
    return str(Path(sys.executable).with_name("kingmaker"))


def environment() -> dict[str, str]:
    """Ours, without settings that are meant for a Kingmaker of whoever runs the tests."""
    return {name: value for name, value in os.environ.items() if not name.startswith("KINGMAKER_")}


def answer_of(name: str, status: int = 200) -> bytes:
    """What an arm says: its name."""
    body = json.dumps({"arm": name}).encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def route(champion: ArmServer, challenger: ArmServer, share: int = 5_000, **changes: Any) -> Document:
    """The route `bid`: arms `old` and `new`, which gets this share; the unit is the user, one metric."""
    return {
        "route": "bid",
        "unit": {"header": "X-User-Id"},
        "arms": [
            {"name": "old", "url": f"http://127.0.0.1:{champion.port}/score", "role": "champion"},
            {"name": "new", "url": f"http://127.0.0.1:{challenger.port}/score", "role": "challenger"},
        ],
        "split": {"weights": {"old": 10_000 - share, "new": share}},
        "metrics": [{"name": "conversion", "kind": "binary", "window": "1h"}],
        "upstream": {"timeout": "20s", "connect_timeout": "10s"},
        **changes,
    }


def converted(token: str, value: int = 1, key: str = "") -> Document:
    """An outcome of the route's metric."""
    return {"decision": token, "metric": "conversion", "value": value, "id": key}


def units(count: int, prefix: str = "u") -> list[str]:
    """As many units."""
    return [f"{prefix}{number}" for number in range(count)]


def counted(totals: Mapping[str, Totals]) -> Totals:
    """All arms together."""
    every: Iterable[Totals] = totals.values()
    return Totals(
        *(sum(column) for column in zip(*((t.decisions, t.n, t.total) for t in every), strict=True))
    )


def processes() -> list[tuple[int, int]]:
    """Every process that runs, with its parent; those that have ended and were not asked why are left out."""
    lines = _of_proc() if Path("/proc/self/stat").exists() else _of_ps()
    return [(int(pid), int(parent)) for pid, state, parent in lines if not state.startswith("Z")]


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for a condition, with a bound."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  # another process makes it true, which sets no event here
            await asyncio.sleep(_LOOK_SECONDS)


async def eventually(
    look: Callable[[], Awaitable[_Found]], wanted: Callable[[_Found], bool], seconds: float = 20.0
) -> float:
    """Look until what is seen is what is wanted; gives the seconds it took."""
    started = time.monotonic()
    while not wanted(found := await look()):
        assert time.monotonic() - started < seconds, found
        await asyncio.sleep(_LOOK_SECONDS)
    return time.monotonic() - started


def _of_proc() -> list[tuple[str, str, str]]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue  # it has ended meanwhile
        found.append((path.parent.name, state, parent))
    return found


def _of_ps() -> list[tuple[str, str, str]]:
    listed = subprocess.run(["ps", "-axo", "pid=,stat=,ppid="], capture_output=True, text=True, check=True)
    return [(pid, state, parent) for pid, state, parent in map(str.split, listed.stdout.splitlines())]
