"""May an arm be where it is declared to be? Gateways ask as well, whenever they connect.

A name that nobody knows yet is none to refuse: what it comes to may change.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from app.control.documents import BadDeclaration
from app.gateway.own import NOWHERE, Listeners, own_refusal
from app.gateway.resolver import Resolver
from app.gateway.settings import GatewaySettings
from policies.errors import BadSpec
from policies.spec import RouteSpec
from routing.addresses import DEFAULT, AddressRules, address_rules, socket_path

PATIENCE_SECONDS = 2.0
"""How long the addresses of a name are waited for."""

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Places:
    """Where arms may be: where the rules allow it, and none of our `own` listeners is."""

    rules: AddressRules = DEFAULT
    own: Listeners = NOWHERE

    @classmethod
    def of(cls, gateway: GatewaySettings, own: Listeners = NOWHERE) -> Places:
        """Where gateways of these settings would call an arm."""
        rules = address_rules(gateway.private_arms, gateway.allow_networks, gateway.deny_networks)
        return cls(rules, own)

    async def require_route(self, spec: RouteSpec) -> None:
        """Refuse a route of which an arm is where none may be.

        Raises:
            BadDeclaration: that is so; it names each such arm.
        """
        urls = {f"arms.{index}.url": arm.url for index, arm in enumerate(spec.arms)}
        await self._require(f"route {spec.name!r}", urls)

    async def require_arm(self, name: str, url: str) -> None:
        """Refuse an arm that is where none may be. A URL that is none is somebody else's to refuse.

        Raises:
            BadDeclaration: that is so.
        """
        await self._require(f"arm {name!r}", {"url": url})

    async def _require(self, subject: str, urls: Mapping[str, str]) -> None:
        resolver = Resolver(asyncio.get_running_loop())
        refusals = await asyncio.gather(*(self._refusal(url, resolver) for url in urls.values()))
        found = zip(urls, refusals, strict=True)
        if errors := [BadSpec(where, refusal) for where, refusal in found if refusal is not None]:
            raise BadDeclaration(subject, errors)

    async def _refusal(self, url: str, resolver: Resolver) -> str | None:
        try:
            parts = urlsplit(url)
            port = parts.port or _PORTS.get(parts.scheme, 0)
        except ValueError:
            return None
        host = parts.hostname
        if (path := socket_path(parts.netloc)) is not None and parts.scheme == "http+unix":
            return self.rules.socket_refusal(path)
        if host is None:
            return None
        try:
            addresses = await resolver.addresses(host, PATIENCE_SECONDS)
        except OSError:
            return None
        ours = [refusal for address in addresses if (refusal := own_refusal(self.own, address, port))]
        refusals = [refusal for address in addresses if (refusal := self.rules.refusal(address)) is not None]
        if ours:  # one of several is too many: what a name comes to takes turns
            refusals = ours
        elif len(refusals) < len(addresses):
            return None
        if addresses == (host,):
            return refusals[0]
        return f"must have an address that may be called, got {host!r}: {'; '.join(refusals)}"
