"""Which addresses does a host name have? Looked up beside the loop, each name once at a time."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from math import inf
from threading import Thread
from time import monotonic

RESOLVED_SECONDS = 10.0
"""How long the addresses of a name are used before it is looked up again."""

TRUSTED_SECONDS = 60.0
"""How long they are used while that goes on; after it, a connection waits for the answer."""

THREADS = 32
"""The most look-ups at a time: so many names may hang before others are kept waiting."""

_MOST_NAMES = 4_096

Ask = Callable[[str], Sequence[str]]
"""Asks for the addresses of a name, and may take its time; raises OSError or ValueError."""


def ask_system(host: str) -> list[str]:
    """The addresses of a name, from the system's resolver, in its order of preference.

    Raises:
        OSError: the name is not known, or nobody can be asked.
        ValueError: it is none that can be asked for.
    """
    found = socket.getaddrinfo(host.encode("ascii"), None, type=socket.SOCK_STREAM)
    return [str(sockaddr[0]) for *_, sockaddr in found]


@dataclass(slots=True)
class _Name:
    addresses: tuple[str, ...] = ()
    found_at: float = -inf
    asked_at: float = -inf
    asking: asyncio.Future[None] | None = None


class Resolver:
    """The addresses of names, as last looked up.

    A look-up that hangs holds a thread, which cannot be stopped: so each name has at most one, and the
    threads are nobody else's. They are daemons: the process does not wait for them when it ends.

    Mutable state: `_names`, and how many threads are `busy`.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, ask: Ask = ask_system, threads: int = THREADS
    ) -> None:
        self.busy = 0
        self._loop = loop
        self._ask = ask
        self._threads = threads
        self._names: dict[str, _Name] = {}

    def __repr__(self) -> str:
        return f"<Resolver of {len(self._names)} names, busy {self.busy}>"

    async def addresses(self, host: str, patience_seconds: float) -> tuple[str, ...]:
        """The addresses of a host; an address is its own. What was known before serves while nobody answers.

        Raises:
            OSError: there are none, or the first look-up has taken longer than this so far.
        """
        if _is_address(host):
            return (host,)
        name = self._name(host)
        age = monotonic() - name.found_at
        if age >= RESOLVED_SECONDS and name.asking is None:
            self._look_up(host, name)
        if age >= TRUSTED_SECONDS and name.asking is not None:
            left = name.asked_at + patience_seconds - monotonic()
            if left > 0:
                await asyncio.wait((name.asking,), timeout=left)
        if not name.addresses:
            raise OSError(f"{host} has no address, or none was found in time")
        return name.addresses

    def _name(self, host: str) -> _Name:
        name = self._names.get(host)
        if name is None:
            if len(self._names) >= _MOST_NAMES:
                self._names = {host: name for host, name in self._names.items() if name.asking is not None}
            name = self._names[host] = _Name()
        return name

    def _look_up(self, host: str, name: _Name) -> None:
        if self.busy >= self._threads:
            return
        thread = Thread(target=self._run, args=(host, name), name=f"look up {host}", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the system gives no more threads
            return
        self.busy += 1
        name.asked_at = monotonic()
        name.asking = self._loop.create_future()

    def _run(self, host: str, name: _Name) -> None:
        try:
            found: Sequence[str] | None = self._ask(host)
        except (OSError, ValueError):
            found = None
        with suppress(RuntimeError):  # the loop has ended meanwhile
            self._loop.call_soon_threadsafe(self._on_answer, name, found)

    def _on_answer(self, name: _Name, found: Sequence[str] | None) -> None:
        self.busy -= 1
        if found is not None:
            name.addresses, name.found_at = tuple(dict.fromkeys(found)), monotonic()
        asking, name.asking = name.asking, None
        if asking is not None:
            asking.set_result(None)


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
