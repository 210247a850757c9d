"""The command line as tests use it: in this process, or as the installed program."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from typer.testing import CliRunner, Result

from app.cli import app

PROGRAM = str(Path(sys.executable).with_name("kingmaker"))
_ADDRESS = re.compile(r"kingmaker: (gateway|control plane) +(http://\S+)")


def invoke(*arguments: str, env: Mapping[str, str] | None = None, text: str | None = None) -> Result:
    """Run a command in this process; `text` is its standard input."""
    return CliRunner().invoke(app, list(arguments), env=_clean() | dict(env or {}), input=text)


def run(*arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the installed program to its end, its output piped."""
    return subprocess.run(
        [PROGRAM, *arguments],
        env=_environment(env),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


class Server:
    """A server process of Kingmaker, and where it listens."""

    def __init__(self, *arguments: str, env: Mapping[str, str] | None = None, addresses: int = 2) -> None:
        self._process = subprocess.Popen(
            [PROGRAM, *arguments],
            env=_environment(env),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.said: list[str] = []
        self.addresses: dict[str, str] = {}
        self._read_addresses(addresses)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def control(self) -> str:
        return self.addresses["control plane"]

    @property
    def gateway(self) -> str:
        return self.addresses["gateway"]

    def stop(self) -> int:
        """Ask it to end; gives its exit code."""
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(30)
        if self._process.stdout is not None:
            self._process.stdout.close()
        return code

    def _read_addresses(self, count: int) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.said.append(line)
            if found := _ADDRESS.match(line):
                self.addresses[found[1]] = found[2]
            if len(self.addresses) == count:
                return
        raise AssertionError(f"it ended with {self._process.wait(10)}, having said {self.said}")


class Session:
    """Somebody at a shell whose KINGMAKER_SERVER names a control plane."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def __call__(self, *arguments: str, text: str | None = None, **env: str) -> Result:
        return invoke(*arguments, env={"KINGMAKER_SERVER": self.server.control} | env, text=text)

    def ok(self, *arguments: str, text: str | None = None) -> str:
        """What a command prints that must succeed, and say nothing on stderr."""
        ran = self(*arguments, text=text)
        assert (ran.exit_code, ran.stderr) == (0, ""), ran.output
        return ran.stdout

    def document(self, *arguments: str, text: str | None = None) -> Any:
        """The one JSON document that a command prints."""
        return json.loads(self.ok(*arguments, "--json", text=text))

    def refused(self, *arguments: str, text: str | None = None) -> str:
        """What a command says on stderr that must be refused, and print nothing."""
        ran = self(*arguments, text=text)
        assert (ran.exit_code, ran.stdout) == (1, ""), ran.output
        return ran.stderr

    def eventually(self, *arguments: str, seconds: float = 60.0) -> Any:
        """The document of a command, as soon as its only list is not empty."""
        until = time.monotonic() + seconds
        while True:
            found = self.document(*arguments)
            if any(found[name] for name in found if isinstance(found[name], list)):
                return found
            assert time.monotonic() < until, found
            time.sleep(0.2)


def _clean() -> dict[str, str | None]:
    return {name: None for name in os.environ if name.startswith("KINGMAKER_")}


def _environment(env: Mapping[str, str] | None) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("KINGMAKER_")}
    return ours | dict(env or {})
