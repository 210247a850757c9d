"""Claims about the lock of a part: one process has it, others are told which, and it ends with it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.locks import only_one
from app.settings import BadSettings

ROOT = Path(__file__).parents[2]
_HOLDER = """
import sys
from pathlib import Path
from app.locks import only_one
with only_one(Path(sys.argv[1]), "gateway"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_one_is_told_who_has_it(tmp_path: Path) -> None:
    """The message names part, folder and process, and what can be done."""
    with only_one(tmp_path, "gateway"), pytest.raises(BadSettings) as refused, only_one(tmp_path, "gateway"):
        pytest.fail("two hold it")
    assert str(refused.value) == (
        f"data_dir {tmp_path} is in use by another gateway (process {os.getpid()}): "
        "stop that one, or give this one its own --data-dir"
    )


def test_parts_and_folders_do_not_mind_each_other(tmp_path: Path) -> None:
    """Another part of the same folder, and the same part of another folder, may run beside it."""
    (tmp_path / "other").mkdir()
    with (
        only_one(tmp_path, "gateway"),
        only_one(tmp_path, "control"),
        only_one(tmp_path / "other", "gateway"),
    ):
        assert (tmp_path / "control.lock").read_text() == f"{os.getpid()}\n"


def test_it_is_free_afterwards(tmp_path: Path) -> None:
    """Once given back it can be had again, also after an error."""
    with pytest.raises(OSError, match="boom"), only_one(tmp_path, "gateway"):
        raise OSError("boom")
    with only_one(tmp_path, "gateway"):
        pass


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    """The lock of another process is respected while it lives, and gone when it was killed."""
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(tmp_path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(BadSettings, match=f"process {holder.pid}"), only_one(tmp_path, "gateway"):
            pytest.fail("two hold it")
        holder.kill()
        holder.wait(10)
        with only_one(tmp_path, "gateway"):
            assert (tmp_path / "gateway.lock").read_text() == f"{os.getpid()}\n"
