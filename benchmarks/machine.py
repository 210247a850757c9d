"""What the figures were measured on and with: they mean nothing without it."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

from benchmarks import envoy, nginx
from benchmarks.processes import LOAD_CORE, MEASURED_CORE, core

_PACKAGES = ("uvloop", "httptools", "numpy", "scipy", "vowpalwabbit", "mabwiser")
_MISSING = "not installed"


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """`one_core`: there is only one, or nobody can be pinned, so that load and measured share it."""

    system: str
    processor: str
    cores: int
    one_core: bool
    versions: dict[str, str]

    @property
    def text(self) -> str:
        """In a few words."""
        shared = ": load and measured share one core" if self.one_core else ""
        return f"{self.processor}, {self.cores} cores{shared}, {self.system}"


def machine() -> Machine:
    """What we run on."""
    return Machine(
        system=platform.platform(),
        processor=_processor(),
        cores=os.cpu_count() or 1,
        one_core=core(MEASURED_CORE) == core(LOAD_CORE),
        versions={
            "python": f"{platform.python_version()} ({os.path.realpath(sys.executable)})",
            **{package: _installed(package) for package in _PACKAGES},
            "wrk": _said(["wrk", "-v"]),
            "nginx": _said([nginx.find() or "nginx", "-v"]),
            "envoy": _said([envoy.find() or "envoy", "--version"]),
        },
    )


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if sys.platform == "linux" and info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return _MISSING


def _said(command: Sequence[str]) -> str:
    """What a program says about its version, on whichever stream; a program that is missing says nothing."""
    try:
        ran = subprocess.run(command, capture_output=True, check=False, timeout=30, text=True)
    except OSError:
        return _MISSING
    words = (ran.stdout + ran.stderr).strip().splitlines()
    return words[0].rpartition("version: ")[2].strip() if words else "unknown"
