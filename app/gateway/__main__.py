"""Starts one gateway worker on an inherited listening socket."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys

import uvloop

from app.events.spool import SpoolError
from app.gateway.options import BadOptions, read_options
from app.gateway.parent import FAILED, Parent
from app.gateway.server import serve
from app.gateway.tracing import TracesUnavailable
from app.telemetry import configure

_GC_THRESHOLDS = (50_000, 20, 20)
"""Requests leave no cycles behind, so it is seldom worth looking for any."""

_log = logging.getLogger("app.gateway")


def main() -> int:
    """Runs a worker to its end; 0 when it drained, 1 when it could not start."""
    configure()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)
    parent = Parent()
    try:
        options = read_options(sys.argv[1:], os.environ)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(options, os.environ, parent))
    except (OSError, SpoolError, BadOptions, TracesUnavailable) as error:
        _log.error("worker cannot run", extra={"fields": {"error": str(error)}})
        parent.say(FAILED + str(error).replace("\n", " "))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
