"""Where is a connection made? To an address that was looked at, never to one by its name alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from time import monotonic
from typing import TypeVar

from app.gateway.own import Listeners, own_refusal
from app.gateway.resolver import Resolver
from app.gateway.targets import Target
from routing.addresses import AddressRules

__all__ = ["FAILED_SECONDS", "Connection", "Dialer"]

FAILED_SECONDS = 10.0
"""How long an address that did not accept stands behind those that may."""

_MOST_TRIES = 4

Connection = TypeVar("Connection", bound=asyncio.BaseProtocol)


class Dialer:
    """Makes the connections to one arm.

    Of several addresses, those of the family that the system prefers take turns; the others come after them.
    Mutable state: whose turn it is, and which addresses have `failed`, when.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, resolver: Resolver, rules: AddressRules, own: Listeners
    ) -> None:
        self.failed: dict[str, float] = {}
        self._turn = 0
        self._loop = loop
        self._resolver = resolver
        self._rules = rules
        self._own = own

    async def dial(self, target: Target, protocol: Callable[[], Connection]) -> Connection:
        """A new connection. Each try, with its TLS handshake, has the arm's `connect_timeout`.

        Raises:
            OSError: it was refused, came too late, or may not be made; the message says which.
        """
        seconds = target.limits.connect_timeout_ms / 1000
        if target.fault is not None:
            raise OSError(target.fault)
        if target.unix_path is not None:
            return await self._dial_socket(target.unix_path, seconds, protocol)
        addresses = self._allowed(await self._resolver.addresses(target.host, seconds), target)
        refusal = OSError(f"{target.host} has no address")
        for address in self._in_turn(addresses)[:_MOST_TRIES]:
            try:
                connection = await self._dial_address(target, address, seconds, protocol)
            except OSError as error:
                self.failed[address] = monotonic()
                refusal = error
            else:
                self.failed.pop(address, None)
                return connection
        raise refusal

    def _allowed(self, addresses: Sequence[str], target: Target) -> list[str]:
        """The addresses that a connection may be made to.

        Raises:
            OSError: there is none.
        """
        refusals = {address: self._refusal(address, target.port) for address in addresses}
        allowed = [address for address, refusal in refusals.items() if refusal is None]
        if not allowed:
            raise OSError(f"{target.host}: address {'; '.join(str(text) for text in refusals.values())}")
        return allowed

    def _refusal(self, address: str, port: int) -> str | None:
        return self._rules.refusal(address) or own_refusal(self._own, address, port)

    def _in_turn(self, addresses: Sequence[str]) -> list[str]:
        family = ":" in addresses[0]
        preferred = [address for address in addresses if (":" in address) is family]
        others = [address for address in addresses if (":" in address) is not family]
        start = self._turn % len(preferred)
        self._turn += 1
        oldest = monotonic() - FAILED_SECONDS
        self.failed = {address: at for address, at in self.failed.items() if at >= oldest}
        return sorted([*preferred[start:], *preferred[:start], *others], key=self.failed.__contains__)

    async def _dial_address(
        self, target: Target, address: str, seconds: float, protocol: Callable[[], Connection]
    ) -> Connection:
        try:
            async with asyncio.timeout(seconds):
                _, connection = await self._loop.create_connection(
                    protocol,
                    address,
                    target.port,
                    ssl=target.ssl,
                    server_hostname=target.server_name if target.ssl is not None else None,
                )
        except TimeoutError as error:
            raise OSError(f"{address} port {target.port} did not answer within {seconds} s") from error
        return connection

    async def _dial_socket(self, path: str, seconds: float, protocol: Callable[[], Connection]) -> Connection:
        if (refusal := self._rules.socket_refusal(path)) is not None:
            raise OSError(f"address {refusal}")
        try:
            async with asyncio.timeout(seconds):
                _, connection = await self._loop.create_unix_connection(protocol, path)
        except TimeoutError as error:
            raise OSError(f"{path} did not answer within {seconds} s") from error
        return connection
