"""`kingmaker keys`: made in the database itself, shown once, and what opens a control plane that has keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest

from app.commands.keys import Role
from app.db.keys import KeyRole
from tests.app.cli.programs import Server, Session, invoke


@pytest.fixture
def data_dir(tmp_path: Path) -> str:
    """A data folder that does not exist yet."""
    return str(tmp_path / "data")


def keys(data_dir: str, *arguments: str) -> Any:
    """The document of a `keys` command that must succeed."""
    ran = invoke("keys", *arguments, "--data-dir", data_dir, "--json")
    assert (ran.exit_code, ran.stderr) == (0, ""), ran.output
    return json.loads(ran.stdout)


def refused(data_dir: str, *arguments: str) -> str:
    """What a `keys` command says that must be refused."""
    ran = invoke("keys", *arguments, "--data-dir", data_dir)
    assert (ran.exit_code, ran.stdout) == (1, ""), ran.output
    return ran.stderr


def test_the_first_key_needs_no_server_and_no_database(data_dir: str) -> None:
    """`create` migrates an empty database first; the list then has the key, without its secret."""
    made = keys(data_dir, "create", "--name", "me", "--role", "admin")
    assert made["key"].startswith("km_")
    assert keys(data_dir, "list") == {"keys": [{name: made[name] for name in made if name != "key"}]}
    assert made["key"].encode() not in (Path(data_dir) / "kingmaker.db").read_bytes()


def test_people_see_the_key_once_on_a_line_of_its_own(data_dir: str) -> None:
    """It can be copied; the list shows name, role and time."""
    ran = invoke("keys", "create", "--role", "viewer", "--name", "ci", "--data-dir", data_dir)
    assert ran.stdout.splitlines()[-1].startswith("km_")
    listed = invoke("keys", "list", "--data-dir", data_dir).stdout.splitlines()[1].split()
    assert listed[:3] == ["1", "ci", "viewer"]
    assert listed[-1].endswith("Z")


def test_a_key_is_named_after_its_role_unless_it_is_named(data_dir: str) -> None:
    """`kingmaker keys create --role admin` is enough, as the messages of the server have it."""
    assert keys(data_dir, "create", "--role", "admin")["name"] == "admin"


def test_names_are_unique_and_of_the_usual_form(data_dir: str) -> None:
    """A second key of the name is refused; a name that cannot be is a usage error."""
    keys(data_dir, "create", "--role", "admin", "--name", "me")
    assert "'me'" in refused(data_dir, "create", "--role", "viewer", "--name", "me")
    assert (
        invoke("keys", "create", "--role", "viewer", "--name", "A B", "--data-dir", data_dir).exit_code == 2
    )


def test_a_deleted_key_is_gone_but_not_the_last_admins(data_dir: str) -> None:
    """Whoever would lock everybody out is stopped; an unknown id is refused."""
    admin = keys(data_dir, "create", "--role", "admin")["id"]
    viewer = keys(data_dir, "create", "--role", "viewer")["id"]
    assert "last admin" in refused(data_dir, "delete", str(admin))
    assert keys(data_dir, "delete", str(viewer)) == {"deleted": viewer}
    assert str(viewer) in refused(data_dir, "delete", str(viewer))


def test_roles_are_those_of_the_database() -> None:
    """The flag offers every role, and no other."""
    literal, _ = get_args(Role)
    assert set(get_args(literal)) == {role.value for role in KeyRole}
    assert invoke("keys", "create", "--role", "king").exit_code == 2


def test_a_database_that_cannot_be_is_refused() -> None:
    """The message names the field and what it must be."""
    ran = invoke("keys", "list", "--database-url", "mysql://host/db")
    assert ran.exit_code == 1
    assert "database_url must start with sqlite:// or postgresql://" in ran.stderr


def test_a_control_plane_with_keys_wants_one(data_dir: str) -> None:
    """Without a key: refused, and told how to pass one. A viewer reads only. A flag beats a variable."""
    admin = keys(data_dir, "create", "--role", "admin")["key"]
    viewer = keys(data_dir, "create", "--role", "viewer")["key"]
    ports = ("--gateway-port", "0", "--control-port", "0")
    with Server("serve", *ports, env={"KINGMAKER_DATA_DIR": data_dir}) as server:
        kingmaker = Session(server)
        assert "KINGMAKER_KEY" in kingmaker.refused("get", "routes")
        assert kingmaker("get", "routes", KINGMAKER_KEY=viewer).exit_code == 0
        ran = kingmaker("kill", "any", KINGMAKER_KEY=viewer)
        assert ran.exit_code == 1
        assert "operator" in ran.stderr
        assert kingmaker("get", "routes", "--key", admin, KINGMAKER_KEY="wrong").exit_code == 0
        assert kingmaker("get", "routes", "--key", "wrong", KINGMAKER_KEY=admin).exit_code == 1
