"""The API's description is complete, its examples are true, and no value makes an operation fall over."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import chain
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped] # it carries no types

from app.control.errors import RESPONSES
from app.version import VERSION
from routing.assignment import Plan
from tests.app.control.stage import Json, Stage, document, faults

NASTY: list[Any] = [
    None,
    True,
    -1,
    0.5,
    10**40,
    "",
    "x" * 3_000,
    "\x00\n'\"; --",
    "../../etc/passwd",
    "\udc80\U0001f451",
    [],
    [None],
    {},
    {"": {"": []}},
]
RAW = [b"1e999", b"-1e999", b"NaN", b'"\\ud800"', b"[" * 3_000 + b"]" * 3_000]
NASTY_TEXTS = [
    "",
    "%00",
    "%ff",
    "..",
    "%2e%2e%2f",
    "9" * 40,
    "-1",
    "NaN",
    "nul",
    "é",
    "x" * 3_000,
    '"',
    "a b",
    "*",
]


@pytest.fixture
def described(stage: Stage) -> Json:
    """The description as it is served."""
    api: Json = stage.app.openapi()
    return api


def _operations(api: Json) -> Iterator[tuple[str, str, Json]]:
    for path, methods in api["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def _resolved(api: Json, schema: Json) -> Json:
    while "$ref" in schema:
        schema = api["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def _examples(api: Json, content: Json) -> list[Any]:
    found: list[Any] = _resolved(api, content["application/json"]["schema"]).get("examples", [])
    return found


def _example(api: Json, operation_id: str) -> Any:
    """The example of what an operation takes."""
    bodies = (each["requestBody"] for _, _, each in _operations(api) if each["operationId"] == operation_id)
    return _examples(api, next(bodies)["content"])[0]


def _matches(api: Json, schema: Json, value: object) -> None:
    """Checks a value as a client with the description would."""
    whole = {**schema, "components": api["components"]}
    Draft202012Validator(whole).validate(value)


async def test_it_is_served_with_every_operation_of_the_contract(stage: Stage) -> None:
    """OpenAPI 3.1 at /openapi.json, for people at /docs, where / leads."""
    api = (await stage.http.get("/openapi.json")).json()
    assert api["openapi"].startswith("3.1")
    assert (api["info"]["title"], api["info"]["version"]) == ("Kingmaker", VERSION)
    actions = ("start", "promote", "rollback", "pause", "resume", "approve")
    reads = ("rollout", "evaluations", "timeline", "metrics", "champion", "shadow")
    assert {(method, path) for method, path, _ in _operations(api)} >= {
        *((method, "/v1/routes/{route}") for method in ("PUT", "GET", "DELETE")),
        ("GET", "/v1/routes"),
        ("POST", "/v1/routes/{route}/arms"),
        *((method, "/v1/routes/{route}/arms/{arm}") for method in ("PATCH", "DELETE")),
        ("PUT", "/v1/routes/{route}/split"),
        *((method, "/v1/routes/{route}/kill-switch") for method in ("PUT", "DELETE")),
        *(("POST", f"/v1/routes/{{route}}/rollout/{action}") for action in actions),
        *(("GET", f"/v1/routes/{{route}}/{read}") for read in reads),
        ("GET", "/v1/routes/{route}/bandit"),
        ("POST", "/v1/routes/{route}/bandit/rebuild"),
        *((method, "/v1/routes/{route}/overrides") for method in ("POST", "GET")),
        ("DELETE", "/v1/routes/{route}/overrides/{id}"),
        ("POST", "/v1/routes/{route}/dry-run"),
        ("POST", "/v1/off-policy-evaluations"),
        ("POST", "/v1/keys"),
        ("GET", "/v1/keys"),
        ("DELETE", "/v1/keys/{id}"),
        *(("GET", path) for path in ("/healthz", "/readyz", "/metrics")),
    }
    assert "text/html" in (await stage.http.get("/docs")).headers["content-type"]
    assert (await stage.http.get("/")).headers["location"] == "/docs"


def test_every_operation_says_what_it_is(described: Json) -> None:
    """An id that reads, a summary, a description and a tag; ids are unique."""
    ids = []
    for method, path, operation in _operations(described):
        where = f"{method} {path}"
        assert operation["operationId"].replace("_", "").isalpha(), where
        assert len(operation["operationId"]) < 25, where
        assert operation["summary"], where
        assert len(operation["description"]) > 15, where
        assert operation["tags"], where
        ids.append(operation["operationId"])
        for parameter in operation.get("parameters", ()):
            known = parameter["name"] in ("id", "dry_run")
            assert known or parameter.get("description"), f"{where} {parameter['name']}"
    assert len(set(ids)) == len(ids)


def test_every_reference_leads_somewhere(described: Json) -> None:
    """And nothing of the framework's own errors is left."""
    schemas = described["components"]["schemas"]
    text = json.dumps(described)
    for part in text.split('"$ref": "')[1:]:
        assert part.partition('"')[0].removeprefix("#/components/schemas/") in schemas
    assert "HTTPValidationError" not in text
    for name, schema in schemas.items():
        Draft202012Validator.check_schema(schema)
        assert schema.get("description"), name


def test_every_error_is_described_as_a_problem(described: Json) -> None:
    """Each operation under /v1 has all of them, as application/problem+json of one schema."""
    for method, path, operation in _operations(described):
        errors = {status: found for status, found in operation["responses"].items() if status >= "400"}
        if path.startswith("/v1/"):
            assert errors.keys() == {str(status) for status in RESPONSES}, (method, path)
        for found in errors.values():
            assert found["description"]
            (content,) = found["content"].items()
            assert content == (
                "application/problem+json",
                {"schema": {"$ref": "#/components/schemas/Problem"}},
            ), (method, path)
    assert set(described["components"]["schemas"]["Problem"]["required"]) == {"title", "status", "detail"}


def test_every_body_has_an_example_that_is_valid(described: Json) -> None:
    """What is sent, and what is answered: each example is of its schema."""
    for method, path, operation in _operations(described):
        successes = [found for status, found in operation["responses"].items() if status < "300"]
        assert successes, (method, path)
        bodies = [found["content"] for found in successes if "content" in found]
        if "requestBody" in operation:
            bodies.append(operation["requestBody"]["content"])
        for content in bodies:
            if path in ("/metrics", "/healthz"):
                continue
            examples = _examples(described, content)
            assert examples, (method, path)
            for example in examples:
                _matches(described, content["application/json"]["schema"], example)
    (problem,) = described["components"]["schemas"]["Problem"]["examples"]
    _matches(described, {"$ref": "#/components/schemas/Problem"}, problem)


async def test_answers_are_as_described(ads: Stage, described: Json) -> None:
    """What the API really answers is of the schema that it describes, errors too."""
    await ads.post("pause")
    await ads.make_key("admin")
    key = await ads.make_key("operator", "two")
    for method, path, operation in _operations(described):
        if method != "GET" or path == "/metrics" or path.startswith("/v1/keys"):
            continue
        if path.endswith("/bandit"):
            continue  # this route has none
        real = path.replace("{route}", "ads")
        answer = await ads.http.get(real, headers={"Authorization": f"Bearer {key}"})
        assert answer.status_code == 200, real
        content = operation["responses"]["200"]["content"]["application/json"]
        _matches(described, content["schema"], answer.json())
    refused = await ads.ask("GET", "/routes/none", key=key)
    _matches(described, {"$ref": "#/components/schemas/Problem"}, refused.json())


async def test_overrides_and_dry_runs_answer_as_described(stage: Stage, described: Json) -> None:
    """Where there is something to answer, and with every kind of step."""
    bodies = [_example(described, name) for name in ("put_route", "add_override", "dry_run")]
    at = f"/routes/{bodies[0]['route']}"
    await stage.put(bodies[0])
    asked = [("post", f"{at}/overrides", bodies[1], 201), ("post", f"{at}/dry-run", bodies[2], 200)]
    for method, path, body, status in (*asked, ("get", f"{at}/overrides", None, 200), asked[1]):
        answer = await stage.ask(method.upper(), path, body)
        assert answer.status_code == status, answer.text
        operation = described["paths"][f"/v1{path}".replace(at, "/routes/{route}")][method]
        content = operation["responses"][str(status)]["content"]["application/json"]
        _matches(described, content["schema"], answer.json())


async def test_the_examples_work(stage: Stage, described: Json) -> None:
    """Whoever copies the request bodies in order gets no error."""
    bodies = {
        operation["operationId"]: _examples(described, operation["requestBody"]["content"])[0]
        for _, _, operation in _operations(described)
        if "requestBody" in operation
    }
    route = bodies["put_route"]["route"]
    at = f"/routes/{route}"
    order = [
        ("PUT", at, "put_route", 201),
        ("PUT", f"{at}/split", "set_split", 200),
        ("POST", f"{at}/rollout/resume", "resume_steps", 200),
        ("POST", f"{at}/rollout/pause", "pause_steps", 200),
        ("PUT", f"{at}/kill-switch", "throw_kill_switch", 200),
        ("PATCH", f"{at}/arms/gbm-v7", "change_arm", 200),
        ("POST", f"{at}/rollout/rollback", "roll_back", 200),
        ("POST", f"{at}/rollout/start", "start_trial", 200),
        ("POST", f"{at}/rollout/promote", "promote_challenger", 200),
        ("POST", f"{at}/overrides", "add_override", 201),
        ("POST", f"{at}/dry-run", "dry_run", 200),
    ]
    for method, path, name, status in order:
        answer = await stage.ask(method, path, bodies[name])
        assert answer.status_code == status, (name, answer.text)
    await stage.put(document())
    assert (await stage.ask("POST", "/routes/ads/arms", bodies["register_arm"])).status_code == 201
    admin = await stage.make_key("admin")
    assert (await stage.ask("POST", "/keys", bodies["make_key"], admin)).status_code == 201


def _spoiled(value: Any) -> Iterator[Any]:
    """Copies of a body, each with something nasty in one place, without one field, or with one too many."""
    yield from NASTY
    if isinstance(value, list):
        for index, part in enumerate(value):
            yield from ([*value[:index], bad, *value[index + 1 :]] for bad in _spoiled(part))
    if isinstance(value, dict):
        yield {**value, "unknown\u2028": 1}
        for name, part in value.items():
            yield {other: kept for other, kept in value.items() if other != name}
            yield from ({**value, name: bad} for bad in _spoiled(part))


async def test_no_body_makes_an_operation_fall_over(ads: Stage, described: Json) -> None:
    """Something nasty in every field of every example: accepted or refused as a problem, never a 5xx."""
    await ads.make_key("admin")
    headers = {
        "Authorization": f"Bearer {await ads.make_key('admin', 'fuzz')}",
        "Content-Type": "application/json",
    }
    for method, path, operation in _operations(described):
        if "requestBody" not in operation:
            continue
        (example,) = _examples(described, operation["requestBody"]["content"])
        real = path.replace("{route}", example.get("route", "ads")).replace("{arm}", "new")
        dry = "?dry_run=true" if operation["operationId"] == "put_route" else ""
        bodies = (json.dumps(body).encode() for body in _spoiled(example))
        for content in chain(bodies, RAW, (b'{"reason": %b}' % raw for raw in RAW)):
            answer = await ads.http.request(method, real + dry, content=content, headers=headers)
            assert answer.status_code < 500, (method, path, content)
            if answer.status_code >= 400:
                faults(answer)


async def test_no_override_makes_a_route_fall_over(stage: Stage, described: Json) -> None:
    """As above, on a route that has what the examples name: what is accepted can be read, and pins."""
    await stage.put(_example(described, "put_route"))
    for path, name in (("overrides", "add_override"), ("dry-run", "dry_run")):
        for body in _spoiled(_example(described, name)):
            content = json.dumps(body).encode()
            answer = await stage.http.post(
                f"/v1/routes/ad-bidder/{path}", content=content, headers={"Content-Type": "application/json"}
            )
            assert answer.status_code < 500, content
    assert (await stage.read("/routes/ad-bidder/overrides"))["overrides"]
    plan = Plan(stage.published("ad-bidder"))
    assert plan.rules is not None


async def test_no_parameter_makes_an_operation_fall_over(ads: Stage, described: Json) -> None:
    """Something nasty in every path, query and header parameter: never a 5xx."""
    for method, path, operation in _operations(described):
        content = operation.get("requestBody", {}).get("content")
        body = _examples(described, content)[0] if content else None
        for parameter in operation.get("parameters", ()):
            for text in NASTY_TEXTS:
                values = {"route": "ads", "arm": "new", "id": "99"}
                headers = {}
                query = ""
                if parameter["in"] == "path":
                    values[parameter["name"]] = text or "%20"
                elif parameter["in"] == "query":
                    query = f"?{parameter['name']}={text}"
                else:
                    headers = {parameter["name"]: text.encode()}
                real = path.format(**values) + query
                answer = await ads.http.request(method, real, json=body, headers=headers)
                assert answer.status_code < 500, (method, real)
                if answer.status_code >= 400:
                    faults(answer)
