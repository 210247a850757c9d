"""Starts one gateway worker on an inherited listening socket."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from pathlib import Path

import uvloop

from app.events.spool import SpoolError
from app.gateway.server import Options, serve
from app.telemetry import configure

_log = logging.getLogger("app.gateway")


def main() -> int:
    """Runs a worker to its end; 0 when it drained, 1 when it could not start."""
    parser = argparse.ArgumentParser(prog="python -m app.gateway", description="A worker of the data plane.")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--worker", required=True, help="name of this worker, and of its spool")
    parser.add_argument("--fd", type=int, required=True, help="inherited listening socket")
    parser.add_argument("--drain-seconds", type=float, default=10.0)
    given = parser.parse_args()
    configure()
    options = Options(given.data_dir, given.worker, given.fd, given.drain_seconds)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(options, os.environ))
    except (OSError, SpoolError) as error:
        _log.error("worker cannot run", extra={"fields": {"error": str(error)}})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
