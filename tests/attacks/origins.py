"""Real servers behind the gateway, each started on a free port: how they run, and what they have seen."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import free_port
from tests.faults.origin import Origin
from tests.faults.scene import PATIENCE_SECONDS, Wire, get

_PLACES = "/usr/sbin:/usr/local/sbin:/usr/local/bin:/usr/bin:/opt/homebrew/bin"

_NGINX = """
daemon off; pid {folder}/nginx.pid; error_log stderr crit; worker_processes 1;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        location / {{ proxy_pass http://127.0.0.1:{behind}; proxy_http_version 1.1; }}
    }}
}}
"""

_HAPROXY = """
defaults
    mode http
    timeout connect 10s
    timeout client 30s
    timeout server 30s
frontend all
    bind 127.0.0.1:{port}
    default_backend behind
backend behind
    server one 127.0.0.1:{behind}
"""

_NODE = """
const seen = [];
require('http').createServer((request, response) => {
    const parts = [];
    request.on('data', part => parts.push(part));
    request.on('end', () => {
        const nonce = request.headers['x-nonce'] || '';
        if (request.url === '/_seen') return response.end(JSON.stringify(seen));
        const body = Buffer.concat(parts);
        seen.push([nonce, body.toString('latin1')]);
        response.setHeader('X-Nonce', nonce);
        response.end(request.method === 'HEAD' ? undefined : nonce);
    });
}).listen(Number(process.argv[2]), '127.0.0.1');
"""


@dataclass(frozen=True, slots=True)
class Seen:
    """A request as a server has read it."""

    nonce: bytes
    body: bytes


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs; `seen` asks it, or what stands behind it, for the requests so far."""

    port: int
    recorder: Origin | None = None

    async def seen(self) -> list[Seen]:
        """Every request, in order."""
        if self.recorder is not None:
            return [Seen(request[b"x-nonce"], request.body) for request in self.recorder.seen]
        async with Wire(self.port) as wire:
            wire.send(get(b"", b"/_seen", b"Connection: close"))
            answer = await wire.answer()
        return [Seen(nonce.encode(), body.encode("latin-1")) for nonce, body in json.loads(answer.body)]


SERVERS = {
    "nginx": "nginx",
    "haproxy": "haproxy",
    "node": "node",
    "uvicorn with httptools": sys.executable,
    "uvicorn with h11": sys.executable,
}
"""Which program each one needs."""


def program(name: str) -> str | None:
    """Where a server's program is, which often is not on a user's PATH."""
    return shutil.which(SERVERS[name]) or shutil.which(SERVERS[name], path=_PLACES)


@asynccontextmanager
async def server(name: str, folder: Path) -> AsyncIterator[Server]:
    """One of `SERVERS`, ready. Behind those that only pass requests on stands an origin that notes them."""
    port = free_port()
    if name not in ("nginx", "haproxy"):
        async with _running(_application(name, folder, port), port, folder):
            yield Server(port)
        return
    recorder = Origin()
    recorder.is_behind_the_gateway = False
    await recorder.start()
    try:
        async with _running(_front(name, folder, port, recorder.port), port, folder):
            yield Server(port, recorder)
    finally:
        await recorder.stop()


def _front(name: str, folder: Path, port: int, behind: int) -> list[str]:
    file = folder / "server.conf"
    skeleton = _NGINX if name == "nginx" else _HAPROXY
    file.write_text(skeleton.format(folder=folder, port=port, behind=behind))
    found = program(name) or name
    if name == "nginx":
        return [found, "-p", str(folder), "-e", "stderr", "-c", str(file)]
    return [found, "-db", "-f", str(file)]


def _application(name: str, folder: Path, port: int) -> list[str]:
    if name == "node":
        file = folder / "server.js"
        file.write_text(_NODE)
        return [program(name) or name, str(file), str(port)]
    options = [
        "--port",
        str(port),
        "--log-level",
        "error",
        "--no-access-log",
        "--ws",
        "none",
        "--http",
        name.rsplit(maxsplit=1)[-1],
    ]
    return [sys.executable, "-m", "uvicorn", "tests.attacks.application:application", *options]


@asynccontextmanager
async def _running(command: Sequence[str], port: int, folder: Path) -> AsyncIterator[None]:
    log = folder / "server.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(  # noqa: ASYNC220  # starting a process takes no time
            command, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors
        )
    try:
        await _accepting(port, process)
        yield
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def _accepting(port: int, process: subprocess.Popen[bytes]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while process.poll() is None:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                await writer.wait_closed()
                return
    raise AssertionError("the server has ended before it accepted anybody; server.log says why")
