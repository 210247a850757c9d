"""The peer: the usual FastAPI and httpx proxy, with a weighted split on a sticky header."""

from __future__ import annotations

import sys
import zlib

import httpx
import uvicorn
from fastapi import FastAPI, Request, Response

app = FastAPI()
client = httpx.AsyncClient(limits=httpx.Limits(max_connections=512, max_keepalive_connections=512))
_urls: list[str] = []


@app.post("/r/bench")
async def proxy(request: Request) -> Response:
    """Pick an endpoint by the user's hash and pass the answer on."""
    bucket = zlib.crc32(request.headers["x-user-id"].encode()) % 10_000
    answer = await client.post(_urls[bucket < 1_000], content=await request.body())
    return Response(answer.content, answer.status_code, media_type=answer.headers["content-type"])


if __name__ == "__main__":
    port, first, second = sys.argv[1:]
    _urls.extend([f"http://127.0.0.1:{first}/", f"http://127.0.0.1:{second}/"])
    uvicorn.run(app, port=int(port), log_level="error")
