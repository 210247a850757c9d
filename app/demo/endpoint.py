"""A model endpoint: trains one model at its start, then answers pages with decisions over HTTP.

`python -m app.demo.endpoint --model gbm-v2 --training FILE` serves until it is told to stop.
"""

from __future__ import annotations

import argparse
from itertools import count
from pathlib import Path

import uvicorn
import uvloop
from fastapi import FastAPI
from fastapi.responses import JSONResponse

from app.demo.models import Model, Name, decide, train
from app.demo.pages import read
from app.listeners import listen, url_of

HOST = "127.0.0.1"
READY = "endpoint: "
"""What the line begins with that gives the endpoint's URL."""


def create_app(model: Model, name: Name, fail_every: int = 0) -> FastAPI:
    """The endpoint of one model. Of `fail_every` requests, if not 0, one is answered with an error."""
    app = FastAPI(title=name.value, openapi_url=None)
    numbers = count(1)

    @app.post("/score")
    async def score(page: dict[str, float]) -> JSONResponse:
        if fail_every and next(numbers) % fail_every == 0:
            return JSONResponse({"error": "the model is broken"}, 500)
        chance = model.chance(page)
        return JSONResponse({"decision": decide(chance), "phishing": round(chance, 4), "model": name})

    return app


async def serve(app: FastAPI, port: int) -> None:
    """Serve on loopback until a signal comes; port 0 takes a free one. Says where on standard output."""
    listener = await listen(HOST, port)
    print(f"{READY}{url_of(listener)}/score", flush=True)
    await uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False)).serve([listener])


def main() -> None:
    """Train and serve, as the flags say."""
    parser = argparse.ArgumentParser(description="Serves one model of the demonstration.")
    parser.add_argument("--model", type=Name, required=True)
    parser.add_argument("--training", type=Path, required=True, help="a file of pages")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--fail-every", type=int, default=0, help="answer one of so many requests with 500")
    told = parser.parse_args()
    model = train(told.model, read(told.training), told.seed)
    uvloop.run(serve(create_app(model, told.model, told.fail_every), told.port))


if __name__ == "__main__":
    main()
