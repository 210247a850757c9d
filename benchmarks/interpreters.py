"""Which Python carries what is measured? The quickest build of this version that is installed.

Images and distributions optimise Python by profile and at link time; one that was compiled from source for a
developer often is not, and takes a tenth more for each request. Envoy and nginx are measured as they are
shipped, so we are too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

FOLDER = Path("build/bench")
"""The environment that is made where another build is quicker than the one that runs this."""

_WORTH_IT = 0.95
_LOOP = """
import os, sys
from time import perf_counter
class Thing:
    def __init__(self, name):
        self.name, self.seen = name, 0
    def see(self, by):
        self.seen += by
        return self.name
def work():
    things = [Thing(b"field-%d: value" % number) for number in range(1000)]
    index = {thing.name: thing for thing in things}
    for _ in range(20):
        for line in list(index):
            name, _, value = line.partition(b": ")
            index[line].see(len(name) + len(value))
def timed():
    began = perf_counter()
    work()
    return perf_counter() - began
print(min(timed() for _ in range(5)), os.path.realpath(sys.executable))
"""


def main() -> int:
    """Make an environment of the quickest build, and print its folder; nothing, where this one will do."""
    best = quickest(found(), sys.executable)
    if best is None:
        return 0
    if os.path.realpath(FOLDER / "bin" / "python") != best:
        print(f"Measuring with {best}, a quicker build of this Python, in {FOLDER} ...", file=sys.stderr)
        command = [*_uv("venv"), "--seed", "--clear", "--python", best, str(FOLDER)]
        ran = subprocess.run(command, check=False, capture_output=True, text=True)
        if ran.returncode != 0:
            print(f"No environment could be made of it: {ran.stderr.strip()}", file=sys.stderr)
            return 0
    print(FOLDER)
    return 0


def found() -> list[str]:
    """The interpreters of this minor version that are installed; none where they cannot be listed."""
    minor = f"cpython@{sys.version_info.major}.{sys.version_info.minor}"
    command = [*_uv("python", "list"), "--only-installed", "--output-format", "json", minor]
    ran = subprocess.run(command, check=False, capture_output=True, text=True)
    listed = json.loads(ran.stdout) if ran.returncode == 0 else []
    return [build["path"] for build in listed if build.get("variant") == "default"]


def quickest(candidates: Iterable[str], present: str) -> str | None:
    """The interpreter that does a fixed loop soonest; None, unless it is 5 % quicker than the present one."""
    own, own_seconds = _probed(present)
    times = {path: seconds for path, seconds in map(_probed, candidates) if path != own}
    best = min(times, key=lambda path: times[path], default=own)
    return best if best in times and times[best] <= _WORTH_IT * own_seconds else None


def _probed(path: str) -> tuple[str, float]:
    """Which program an interpreter really is, and how long its loop takes; for ever, if it does not run."""
    try:
        ran = subprocess.run([path, "-I", "-S", "-c", _LOOP], check=True, capture_output=True, text=True)
        seconds, _, real = ran.stdout.strip().partition(" ")
        return real, float(seconds)
    except (OSError, ValueError, subprocess.CalledProcessError):
        return path, float("inf")


def _uv(*command: str) -> list[str]:
    return [sys.executable, "-m", "uv", "--no-config", *command]


if __name__ == "__main__":
    sys.exit(main())
