"""FastAPI and httpx as a peer: the usual Python proxy, with a weighted split on the sticky header."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import uvicorn
from fastapi import FastAPI, Request, Response

from benchmarks.calls import HEADER
from benchmarks.processes import MEASURED_CORE, Process, free_port, process, python, wait_for

app = FastAPI()
client = httpx.AsyncClient(limits=httpx.Limits(max_connections=512, max_keepalive_connections=512))
_urls: list[str] = []


@app.post("/r/bench")
async def score(request: Request) -> Response:
    """Pick an endpoint by the user's hash and pass the answer on."""
    bucket = zlib.crc32(request.headers[HEADER].encode()) % 10_000
    answer = await client.post(_urls[bucket < 1_000], content=await request.body())
    return Response(answer.content, answer.status_code, media_type=answer.headers["content-type"])


@contextmanager
def proxy(folder: Path, arms: Sequence[int]) -> Iterator[tuple[int, Process]]:
    """One uvicorn worker that sends a tenth of the users to the second arm; gives its port and process."""
    port = free_port()
    log = folder / "fastapi.log"
    command = python("-m", "benchmarks.fastapi_peer", str(port), *map(str, arms[:2]))
    with process(command, MEASURED_CORE, log) as started:
        wait_for(port, started, log)
        yield port, started


if __name__ == "__main__":
    port, first, second = sys.argv[1:]
    _urls.extend([f"http://127.0.0.1:{first}/", f"http://127.0.0.1:{second}/"])
    uvicorn.run(app, port=int(port), log_level="error")
