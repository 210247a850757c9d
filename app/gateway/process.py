"""What does this process use? The figures that Prometheus expects of any, where the system tells."""

from __future__ import annotations

import contextlib
import os
import resource
import time
from pathlib import Path

_SELF = Path("/proc/self")
_PAGE_BYTES = resource.getpagesize()


def process_figures() -> dict[str, float]:
    """The figures by their names in Prometheus; what a system without /proc does not tell is left out."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    figures = {
        "process_cpu_seconds_total": own.ru_utime + own.ru_stime,
        "process_start_time_seconds": _STARTED,
    }
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if most != resource.RLIM_INFINITY:
        figures["process_max_fds"] = float(most)
    with contextlib.suppress(OSError):
        pages = (_SELF / "statm").read_text().split()[1]
        figures["process_resident_memory_bytes"] = float(int(pages) * _PAGE_BYTES)
        figures["process_open_fds"] = float(_open_fds())
    return figures


def _open_fds() -> int:
    """Counted by the kernel where it does (Linux 6.2), as listing thousands of them takes milliseconds."""
    return os.stat(_SELF / "fd").st_size or len(os.listdir(_SELF / "fd"))


def _started() -> float:
    """When this process started: from the kernel, or else now."""
    with contextlib.suppress(OSError):
        ticks = int((_SELF / "stat").read_text().rpartition(")")[2].split()[19])
        uptime = time.clock_gettime(time.CLOCK_BOOTTIME)
        return time.time() - uptime + ticks / os.sysconf("SC_CLK_TCK")
    return time.time()


_STARTED = _started()
