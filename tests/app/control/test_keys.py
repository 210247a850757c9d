"""A key is shown once and kept as a hash; the last admin's stays while others are left."""

from __future__ import annotations

from hashlib import sha256

import pytest

from tests.app.control.stage import Json, Stage, faults


async def _make(stage: Stage, name: str, role: str, key: str | None = None) -> Json:
    answer = await stage.ask("POST", "/keys", {"name": name, "role": role}, key)
    assert answer.status_code == 201, answer.text
    made: Json = answer.json()
    return made


async def test_a_secret_is_shown_once_and_stored_nowhere(stage: Stage) -> None:
    """It is in no file of the data folder and in no later answer; its hash is what the database holds."""
    made = await _make(stage, "me", "admin")
    secret = made["key"]
    assert secret.startswith("km_")
    assert len(secret) >= 43
    assert (made["name"], made["role"]) == ("me", "admin")
    await stage.ask("POST", "/keys", {"name": "ci", "role": "operator"}, secret)
    listed = await stage.ask("GET", "/keys", key=secret)
    assert [set(key) for key in listed.json()["keys"]] == [{"id", "name", "role", "created_at"}] * 2
    assert secret not in listed.text
    contents = b"".join(path.read_bytes() for path in stage.folder.iterdir())
    assert secret.encode() not in contents
    assert secret.removeprefix("km_").encode() not in contents
    assert sha256(secret.encode()).hexdigest().encode() in contents


async def test_no_two_keys_are_alike(stage: Stage) -> None:
    """Each has a secret of its own, and a name: one that is taken is a conflict."""
    admin = await _make(stage, "me", "admin")
    other = await _make(stage, "other", "admin", admin["key"])
    assert other["key"] != admin["key"]
    answer = await stage.ask("POST", "/keys", {"name": "other", "role": "viewer"}, admin["key"])
    assert answer.status_code == 409
    assert "got 'other'" in answer.json()["detail"]


@pytest.mark.parametrize("role", ["viewer", "ingest", "operator"])
async def test_the_first_key_is_an_admins(stage: Stage, role: str) -> None:
    """Another would shut out whoever made it, as from then on only an admin makes keys."""
    answer = await stage.ask("POST", "/keys", {"name": "first", "role": role})
    assert answer.status_code == 422
    assert f"admin for the first key, or nobody could make another, got '{role}'" in faults(answer)["role"]
    assert (await stage.read("/keys"))["keys"] == []


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        ({"name": "A B", "role": "admin"}, "name", "must match [a-z0-9][a-z0-9._-]{0,62}, got 'A B'"),
        ({"name": "", "role": "admin"}, "name", "got ''"),
        ({"name": "a" * 64, "role": "admin"}, "name", "must match"),
        ({"name": "ci", "role": "king"}, "role", "got 'king'"),
        ({"name": "ci"}, "role", "is required"),
        ({"name": "ci", "role": "admin", "key": "mine"}, "key", "is not a known field"),
    ],
)
async def test_a_key_that_cannot_be_is_refused_by_field(
    stage: Stage, body: Json, field: str, message: str
) -> None:
    """And none is made."""
    answer = await stage.ask("POST", "/keys", body)
    assert answer.status_code == 422
    assert message in faults(answer)[field]
    assert (await stage.read("/keys"))["keys"] == []


async def test_a_deleted_key_opens_nothing_any_more(stage: Stage) -> None:
    """204, and from then on 401."""
    admin = await _make(stage, "me", "admin")
    viewer = await _make(stage, "you", "viewer", admin["key"])
    assert (await stage.ask("GET", "/routes", key=viewer["key"])).status_code == 200
    assert (await stage.ask("DELETE", f"/keys/{viewer['id']}", key=admin["key"])).status_code == 204
    assert (await stage.ask("GET", "/routes", key=viewer["key"])).status_code == 401


async def test_the_last_admin_stays_while_others_are_left(stage: Stage) -> None:
    """409 and the key still works; with a second admin, or alone, it may go."""
    admin = await _make(stage, "me", "admin")
    viewer = await _make(stage, "you", "viewer", admin["key"])
    refused = await stage.ask("DELETE", f"/keys/{admin['id']}", key=admin["key"])
    assert refused.status_code == 409
    assert "last admin" in refused.json()["detail"]
    heir = await _make(stage, "heir", "admin", admin["key"])
    assert (await stage.ask("DELETE", f"/keys/{admin['id']}", key=admin["key"])).status_code == 204
    for key in (viewer, heir):
        assert (await stage.ask("DELETE", f"/keys/{key['id']}", key=heir["key"])).status_code == 204
    assert (await stage.read("/keys"))["keys"] == []


@pytest.mark.parametrize("key_id", ["0", "-1", "99", "9" * 30])
async def test_there_is_no_such_key(stage: Stage, key_id: str) -> None:
    """404, by id."""
    answer = await stage.ask("DELETE", f"/keys/{key_id}")
    assert answer.status_code == 404
    assert key_id in answer.json()["detail"]


async def test_the_timeline_names_the_key_that_acted(ads: Stage) -> None:
    """A key's name is the actor."""
    admin = await _make(ads, "me", "admin")
    operator = await _make(ads, "bidding-ci", "operator", admin["key"])
    done = await ads.ask(
        "PUT", "/routes/ads/split", {"weights": {"old": 5_000, "new": 5_000}}, operator["key"]
    )
    assert done.status_code == 200
    rows = (await ads.ask("GET", "/routes/ads/timeline", key=admin["key"])).json()["timeline"]
    assert (rows[0]["actor"], rows[-1]["actor"]) == ("bidding-ci", "local")
