"""nginx: as a peer that splits on the sticky header, and as the model endpoint that nobody waits for."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.calls import HEADER
from benchmarks.figures import Gap
from benchmarks.processes import LOAD_CORE, MEASURED_CORE, Process, free_port, process, wait_for

_PLACES = "/usr/sbin:/usr/local/sbin:/usr/local/bin:/usr/bin:/opt/homebrew/bin"
_MANY = 1_000_000_000

_BODY = '{"score":0.123456,"model":"endpoint","took_ms":0.01,"pad":"xxxxxxxxxxxxxxxxxxx"}'
"""80 bytes of JSON."""

_SKELETON = """
daemon off;
pid {folder}/nginx.pid;
error_log stderr crit;
worker_processes 1;
worker_rlimit_nofile 8192;
events {{ worker_connections 8000; }}
http {{
    access_log off;
    default_type application/json;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests {many};
    keepalive_timeout 1h;
    {inside}
}}
"""

_ARM = "upstream arm_{number} {{ server 127.0.0.1:{port}; keepalive 128; keepalive_requests {many}; }}"

_PROXY = """
    {arms}
    split_clients $http_{header} $arm {{ 10% arm_1; * arm_0; }}
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        location / {{
            proxy_pass http://$arm;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
        }}
    }}
"""

_ENDPOINT = """
    server {{ listen 127.0.0.1:{port} backlog=4096; location / {{ return 200 '{body}'; }} }}
"""


def find() -> str | None:
    """Where nginx is, which often is not on a user's PATH."""
    return shutil.which("nginx") or shutil.which("nginx", path=_PLACES)


def missing() -> Gap | None:
    """The gap that a comparison has without nginx."""
    if find():
        return None
    return Gap(name="nginx", why="nginx is not installed: apt-get install nginx (Debian, Ubuntu)")


@contextmanager
def proxy(folder: Path, arms: Sequence[int]) -> Iterator[tuple[int, Process]]:
    """One worker that sends a tenth of the users to the second arm; gives its port and process."""
    port = free_port()
    upstreams = " ".join(
        _ARM.format(number=number, port=arm, many=_MANY) for number, arm in enumerate(arms[:2])
    )
    inside = _PROXY.format(arms=upstreams, header=HEADER.lower().replace("-", "_"), port=port)
    with _running(folder, inside, port, MEASURED_CORE) as started:
        yield port, started


@contextmanager
def endpoint(folder: Path, arms: int) -> Iterator[list[int]]:
    """One worker that answers for so many model endpoints; gives their ports."""
    ports = [free_port() for _ in range(arms)]
    inside = "".join(_ENDPOINT.format(port=port, body=_BODY) for port in ports)
    with _running(folder, inside, ports[-1], LOAD_CORE):
        yield ports


@contextmanager
def _running(folder: Path, inside: str, port: int, on: int) -> Iterator[Process]:
    """The master and its one worker, on one core."""
    binary = find()
    assert binary is not None
    file, log = folder / "nginx.conf", folder / "nginx.log"
    file.write_text(_SKELETON.format(folder=folder, inside=inside, many=_MANY))
    command = [binary, "-p", str(folder), "-e", "stderr", "-c", str(file)]
    with process(command, on, log) as started:
        wait_for(port, started, log)
        yield started
