"""Where are OpenFeature's JavaScript packages? Installed once, by their lock, in a folder that is built."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
FOLDER = HERE.parents[1] / "build" / "openfeature"
LOCKED = ("package.json", "package-lock.json")
INSTALLED = ".installed"
_SECONDS = 300


class Missing(Exception):
    """The packages cannot be had here; the message says what is missing."""


def prepare(folder: Path = FOLDER) -> Path:
    """The folder `node_modules` with everything that the lock names; no script of a package is run.

    Raises:
        Missing: there is no npm, or no node.
        CalledProcessError: npm cannot install what is locked.
    """
    missing = [program for program in ("node", "npm") if shutil.which(program) is None]
    if missing:
        raise Missing(
            f"{' and '.join(missing)} not installed: OpenFeature's JavaScript providers are not tried"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _locked(folder) != _locked(HERE) or not (folder / INSTALLED).exists():
            _install(folder)
        (folder / INSTALLED).touch()
    return folder / "node_modules"


def _install(folder: Path) -> None:
    (folder / INSTALLED).unlink(missing_ok=True)
    for name in LOCKED:
        shutil.copy(HERE / name, folder / name)
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    subprocess.run(command, cwd=folder, stdout=sys.stderr, timeout=_SECONDS, check=True)


def _locked(folder: Path) -> list[bytes | None]:
    paths = [folder / name for name in LOCKED]
    return [path.read_bytes() if path.exists() else None for path in paths]


if __name__ == "__main__":
    try:
        prepare()
    except Missing as missing:
        print(f"make: {missing}", file=sys.stderr)
    except subprocess.CalledProcessError as failed:
        sys.exit(f"make: npm cannot install what tests/openfeature/{LOCKED[1]} names: {failed}")
