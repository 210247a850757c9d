"""Who is compared: the gateway and its peers, all before the same model endpoints, all on one core."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from benchmarks import envoy, fastapi_peer, nginx, routes
from benchmarks.endpoint import endpoints
from benchmarks.figures import Gap
from benchmarks.gateway import gateway, is_compiled
from benchmarks.gateway import missing as not_compiled
from benchmarks.plan import Plan

KINGMAKER = "kingmaker"
PURE = "kingmaker, pure Python"
ENVOY = "envoy"
NGINX = "nginx"
FASTAPI = "fastapi + httpx"


@dataclass(frozen=True, slots=True)
class Lineup:
    """The contestants' ports by name, in the order in which they take turns; and who is missing.

    `direct` is the port of a model endpoint itself: what there is without anybody between.
    """

    ports: dict[str, int]
    direct: int
    gaps: tuple[Gap, ...]


@contextmanager
def lineup(plan: Plan) -> Iterator[Lineup]:
    """Everybody who is installed here, started and left running side by side."""
    with ExitStack() as stack:
        arms = stack.enter_context(endpoints(plan.place("endpoint")))
        worker = stack.enter_context(gateway(plan.place("gateway"), routes.two_arms(arms)))
        ports = {KINGMAKER: worker.port}
        if is_compiled():
            plain = stack.enter_context(gateway(plan.place("pure"), routes.two_arms(arms), pure=True))
            ports[PURE] = plain.port
        gaps = [gap for gap in (not_compiled(), envoy.missing(), nginx.missing()) if gap]
        if envoy.find():
            ports[ENVOY] = stack.enter_context(envoy.proxy(plan.place("envoy"), arms))[0]
        if nginx.find():
            ports[NGINX] = stack.enter_context(nginx.proxy(plan.place("nginx"), arms))[0]
        ports[FASTAPI] = stack.enter_context(fastapi_peer.proxy(plan.place("fastapi"), arms))[0]
        yield Lineup(ports, arms[0], tuple(gaps))
