"""Which Python carries what is measured? Builds of one version differ by a fifth: the quickest one here.

Images and distributions build Python with optimisation by profile and at link time; one that was compiled
from source for a developer often is not. Envoy and nginx are measured as they are shipped, so we are too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

FOLDER = Path("build/bench")
"""The environment that is made where another interpreter is quicker than the one that runs this."""

_WORTH_IT = 0.95
_LOOP = """
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
print(min(timed() for _ in range(5)))
"""


def main() -> int:
    """Print the folder of the environment to measure in: this one, or one of the quickest interpreter."""
    fastest = quickest(found(), sys.executable)
    if fastest == sys.executable:
        print(sys.prefix)
        return 0
    if not _is_made_of(fastest):
        print(f"Measuring with {fastest}, a quicker build of this Python, in {FOLDER} ...", file=sys.stderr)
        ran = subprocess.run(
            [*_uv("venv"), "--seed", "--clear", "--python", fastest, str(FOLDER)],
            check=False,
            capture_output=True,
            text=True,
        )
        if ran.returncode != 0:
            print(f"No environment could be made of it: {ran.stderr.strip()}", file=sys.stderr)
            print(sys.prefix)
            return 0
    print(FOLDER)
    return 0


def found() -> list[str]:
    """The interpreters of this minor version that are installed; none where they cannot be listed."""
    minor = f"{sys.version_info.major}.{sys.version_info.minor}"
    listing = [*_uv("python", "list"), "--only-installed", "--output-format", "json", f"cpython@{minor}"]
    ran = subprocess.run(listing, check=False, capture_output=True, text=True)
    if ran.returncode != 0:
        return []
    return [build["path"] for build in json.loads(ran.stdout) if build["variant"] == "default"]


def quickest(candidates: Iterable[str], present: str) -> str:
    """The interpreter that does a fixed loop soonest; `present`, unless one is at least 5 % quicker."""
    times = {path: _seconds(path) for path in (present, *candidates)}
    best = min(times, key=lambda path: times[path])
    return best if times[best] <= _WORTH_IT * times[present] else present


def _seconds(path: str) -> float:
    """How long the loop takes, at its best; for ever, where it does not run."""
    ran = subprocess.run([path, "-I", "-S", "-c", _LOOP], check=False, capture_output=True, text=True)
    return float(ran.stdout) if ran.returncode == 0 else float("inf")


def _is_made_of(path: str) -> bool:
    made = FOLDER / "bin" / "python"
    return made.exists() and os.path.realpath(made) == os.path.realpath(path)


def _uv(*command: str) -> list[str]:
    return [sys.executable, "-m", "uv", "--no-config", *command]


if __name__ == "__main__":
    sys.exit(main())
