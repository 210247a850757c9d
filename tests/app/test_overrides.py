"""An override over the whole way: made by a person, obeyed by the gateway, counted, kept out of evidence."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.app.product import Caller, Document, Product, Server, converted, eventually, route

COUNTRY = {"name": "country", "from": {"json": "/country"}, "type": "id"}
GERMANY = {"attribute": "context.country", "op": "equals", "values": ["DE"]}


@pytest.fixture
async def server(product: Product) -> Server:
    """A server with the route `bid`, a tenth of whose users get the challenger `new`."""
    old, new = await product.arm("old"), await product.arm("new")
    return await product.serve(routes=[route(old, new, 1_000, context=[COUNTRY])])


async def pin(server: Server, **changes: Any) -> int:
    """Makes an override to the challenger; gives its id."""
    body = {"arm": "new", "reason": "asked for", **changes}
    return int((await server.api("POST", "/routes/bid/overrides", body))["id"])


async def reason(caller: Caller, unit: str = "u7", country: str = "FR", **headers: str) -> str | None:
    """Why a user got the arm that answered."""
    answer = await caller.ask("/r/bid/score", {"country": country}, X_User_Id=unit, **headers)
    return answer["kingmaker-reason"]


async def test_pinned_users_are_counted_and_decide_nothing(server: Server) -> None:
    """They get their arm at once; the list says how many, and the metrics that they are no evidence."""
    override = await pin(server, when=[{"attribute": "unit", "op": "in", "values": ["u1", "u2"]}])
    reasons: Counter[str | None] = Counter()
    async with server.caller() as caller:
        while not reasons["OVERRIDE"]:
            reasons[await reason(caller, "u1")] += 1
        arm, token = await caller.decide("u2")
        assert arm == "new"
        assert (await caller.report([converted(token)])).status == 202
        reasons.update([await reason(caller, f"free{number}") for number in range(20)])
    pinned = reasons["OVERRIDE"] + 1

    async def listed() -> Document:
        return dict((await server.api("GET", "/routes/bid/overrides"))["overrides"][0])

    await eventually(listed, lambda found: found["matched"]["last_hour"] == pinned)
    found = await listed()
    assert (found["id"], found["matched"]["last_day"]) == (override, pinned)
    assert found["matched"]["last_at"] is not None
    days = (await server.api("GET", "/routes/bid/metrics"))["days"]
    assert sum(day["decisions"] - day["deciding"] for day in days if day["arm"] == "new") == pinned
    assert all(day["decisions"] == day["deciding"] for day in days if day["arm"] == "old")


@pytest.mark.long
async def test_it_expires_by_the_clock_and_the_kill_switch_comes_first(server: Server) -> None:
    """The timeline says so within seconds; another one goes on, until the switch is thrown."""
    soon = datetime.now(UTC) + timedelta(seconds=2)
    lasting = await pin(server, when=[{"attribute": "header.X-Test", "op": "exists"}])
    ending = await pin(server, when=[GERMANY], expires_at=soon.isoformat())

    async def newest() -> Document:
        return dict((await server.api("GET", "/routes/bid/timeline"))["timeline"][0])

    async with server.caller() as caller:
        await eventually(lambda: reason(caller, X_Test="1"), lambda found: found == "OVERRIDE")
        assert await reason(caller) == "SPLIT"
        while datetime.now(UTC) < soon:
            await reason(caller, country="DE")
        assert await reason(caller, country="DE") == "SPLIT"
        await eventually(newest, lambda entry: entry["kind"] == "override_expired", 10)
        entry = await newest()
        assert (entry["actor"], entry["evidence"]["id"]) == ("policy", ending)
        assert await reason(caller, X_Test="1") == "OVERRIDE"
        await server.api("PUT", "/routes/bid/kill-switch", {"reason": "test"})
        await eventually(lambda: reason(caller, X_Test="1"), lambda found: found == "KILL_SWITCH")
    assert [each["id"] for each in (await server.api("GET", "/routes/bid/overrides"))["overrides"]] == [
        lasting
    ]


@pytest.mark.long
async def test_a_dry_run_agrees_with_the_gateway(server: Server) -> None:
    """For user after user: by unit, context, header, path and method, with shares and priorities."""
    old_app = {"attribute": "header.X-App", "op": "semver_lt", "values": ["2.0.0"]}
    await pin(server, share=3_000, when=[old_app])
    await pin(server, arm="old", when=[{"attribute": "path", "op": "contains", "values": ["/safe"]}])
    writing = {"attribute": "method", "op": "not_equals", "values": ["GET"]}
    await pin(server, share=5_000, priority=7, when=[writing])
    third = {"attribute": "unit", "op": "ends_with", "values": ["3"]}
    last = await pin(server, priority=9, when=[GERMANY, third])
    seen = set()
    async with server.caller() as caller:
        await eventually(lambda: reason(caller, "u3", "DE"), lambda found: found == "OVERRIDE")
        for number in range(40):
            unit, app = f"u{number}", "1.0.0" if number % 2 else "2.1.0"
            country = "DE" if number % 3 else "FR"
            path = "/r/bid/safe" if number % 5 == 0 else "/r/bid/score?x=1"
            headers = {"X-User-Id": unit, "X-App": app}
            asked = {"headers": headers, "path": path, "method": "POST", "context": {"country": country}}
            said = await server.api("POST", "/routes/bid/dry-run", asked)
            done = await caller.ask(path, {"country": country}, X_User_Id=unit, X_App=app)
            assert (said["arm"], said["reason"]) == (done["kingmaker-arm"], done["kingmaker-reason"]), asked
            seen.add((said["reason"], said["override"]))
    assert len(seen) >= 4
    assert ("OVERRIDE", last) in seen
