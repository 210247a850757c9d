"""Claims about settings: each has its bounds, and the data folder is there, for this user alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from app.settings import BadSettings, Settings, prepare_data_dir


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"gateway_port": -1}, r"gateway_port must be in \[0, 65535\], got -1"),
        ({"control_port": 65_536}, r"control_port must be in \[0, 65535\], got 65536"),
        ({"workers": 0}, r"workers must be in \[1, 256\], got 0"),
        ({"workers": 257}, r"workers must be in \[1, 256\], got 257"),
        ({"gateway_port": 9, "control_port": 9}, "gateway_port and control_port must differ, got 9 twice"),
        (
            {"redis_url": "127.0.0.1:6379"},
            "redis_url must begin with one of redis://, rediss://, unix://, got none",
        ),
        ({"redis_url": "http://ann:secret@a/0"}, "unix://, got http$"),
        *(
            (
                {"redis_url": url},
                "redis_url must be as redis://USER:PASSWORD@HOST:PORT/DATABASE or unix:///PATH, ",
            )
            for url in (
                *("redis://127.0.0.1:99999/0", "redis://127.0.0.1:abc/0", "redis://[::1/0", "redis:///0"),
                *(
                    "redis://:sec#ret@h/0",
                    "redis://h/abc",
                    "redis://h?max_connections=x",
                    "redis://h/0?foo=bar",
                ),
                *("redis://h:0", "unix://", "redis://"),
            )
        ),
    ],
)
def test_a_setting_out_of_bounds_is_named(given: dict[str, Any], message: str) -> None:
    """The message has the field, its bound and the value."""
    with pytest.raises(BadSettings, match=message):
        Settings(**given)


@pytest.mark.parametrize(
    "url", ["redis://h", "redis://h:1/0", "rediss://ann:s%23t@[::1]:6380/15", "unix:///run/redis.sock"]
)
def test_a_place_of_redis_is_taken(url: str) -> None:
    """With or without a port, a user, a password, a database."""
    assert Settings(redis_url=url).redis_url == url


def test_any_port_twice_is_two_ports() -> None:
    """Port 0 takes a free one, so that both may have it."""
    assert Settings(gateway_port=0, control_port=0).gateway_port == 0


def test_the_database_is_a_file_in_the_data_folder_unless_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative folder means the one below where the process was started."""
    monkeypatch.chdir(tmp_path)
    assert Settings(data_dir=Path("here")).database == f"sqlite:///{tmp_path}/here/kingmaker.db"
    assert Settings(database_url="postgresql://db/kingmaker").database == "postgresql://db/kingmaker"


def test_the_data_folder_is_for_this_user_alone(tmp_path: Path) -> None:
    """It holds signing keys. One that is there already keeps its mode."""
    prepare_data_dir(tmp_path / "a" / "new")
    assert (tmp_path / "a" / "new").stat().st_mode & 0o777 == 0o700
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o755)
    prepare_data_dir(tmp_path / "open")
    assert (tmp_path / "open").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "open" / "spools").stat().st_mode & 0o777 == 0o700


def test_files_are_for_this_user_alone_wherever_they_lie(tmp_path: Path) -> None:
    """In a folder that others may read, the database with its signing keys is nobody else's to read."""
    command = [str(Path(sys.executable).with_name("kingmaker")), "migrate", "--data-dir", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    assert {path.name: path.stat().st_mode & 0o077 for path in tmp_path.glob("kingmaker.db*")} == {
        "kingmaker.db": 0
    }


def test_a_folder_that_a_url_cannot_name_is_refused() -> None:
    """A question mark would begin the options of the database's URL."""
    with pytest.raises(BadSettings, match="data_dir must not hold a question mark"):
        Settings(data_dir=Path("what?"))


@pytest.mark.parametrize("taken", ["data", "data/spools"])
def test_a_file_in_its_place_is_named(tmp_path: Path, taken: str) -> None:
    """Where a file stands in the way of a folder, the message has the folder."""
    (tmp_path / taken).parent.mkdir(exist_ok=True)
    (tmp_path / taken).write_text("")
    with pytest.raises(BadSettings, match=f"data_dir must be a folder .* got {tmp_path / 'data'}: "):
        prepare_data_dir(tmp_path / "data")
