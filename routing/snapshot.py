"""The immutable object a gateway worker routes by, and the look-up from a request to its route."""

from __future__ import annotations

import msgspec

from routing.claims import SigningKey
from routing.errors import BadSnapshot
from routing.types import Match, Route


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a worker needs to answer: routes, and the keys of decision tokens (the first one signs).

    Raises:
        BadSnapshot: no key, or two routes that match the same requests.
    """

    version: int
    created_at_ms: int
    routes: tuple[Route, ...]
    keys: tuple[SigningKey, ...]

    def __post_init__(self) -> None:
        if not self.keys:
            raise BadSnapshot("keys must hold at least one signing key, got none")
        seen: dict[tuple[str, str], str] = {}
        for route in self.routes:
            place = place_of(route.match)
            if place in seen:
                raise BadSnapshot(f"routes {seen[place]} and {route.name} have the same match {place}")
            seen[place] = route.name


class RouteTable:
    """Finds the route of a request in time that does not grow with the number of routes.

    A host-specific route is preferred to one for any host, then the longest path prefix wins.
    """

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.keys = {key.id: key for key in snapshot.keys}
        self._by_id = {route.id: route for route in snapshot.routes}
        self._by_name = {route.name: route for route in snapshot.routes}
        self._by_host: dict[str, dict[str, Route]] = {}
        for route in snapshot.routes:
            host, prefix = place_of(route.match)
            self._by_host.setdefault(host, {})[prefix] = route
        self._anywhere = self._by_host.pop("", {})
        prefixes = [prefix for places in (self._anywhere, *self._by_host.values()) for prefix in places]
        self._longest = max(map(len, prefixes), default=0)

    def find(self, host: str, path: str) -> Route | None:
        """The route of a request by its Host header (port ignored) and path (without query)."""
        if self._by_host and (places := self._by_host.get(_host_key(host))) is not None:
            route = self._under(places, path)
            if route is not None:
                return route
        return self._under(self._anywhere, path)

    def _under(self, places: dict[str, Route], path: str) -> Route | None:
        """The route with the longest prefix of the path that ends at a segment boundary.

        Of a path longer than every prefix only as much is looked at as a prefix could be.
        """
        prefix = path.rstrip("/")
        if len(prefix) > self._longest:
            prefix = prefix[: max(prefix.rfind("/", 0, self._longest + 1), 0)].rstrip("/")
        while prefix:
            if (route := places.get(prefix)) is not None:
                return route
            prefix = prefix.rpartition("/")[0].rstrip("/")
        return places.get("")

    def by_id(self, route_id: int) -> Route | None:
        """The route with this numeric id."""
        return self._by_id.get(route_id)

    def by_name(self, name: str) -> Route | None:
        """The route with this name."""
        return self._by_name.get(name)


def place_of(match: Match) -> tuple[str, str]:
    """What a match comes to, however it is written: two that have the same place match the same requests."""
    return _host_key(match.host), _prefix_key(match.path_prefix)


def _host_key(host: str | None) -> str:
    if not host:
        return ""
    bare = host.lower()
    if bare.startswith("["):
        return bare.partition("]")[0] + "]"
    return bare.partition(":")[0].rstrip(".")


def _prefix_key(prefix: str | None) -> str:
    return (prefix or "/").rstrip("/")
