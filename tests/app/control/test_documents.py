"""From the wire and back: what cannot be is refused field by field, what can be survives the way round."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given, settings

from app.config import load_configuration
from app.control.documents import BadDeclaration, document_of, parse_route, plain, spec_of
from app.control.schemas import PolicyDocument, RouteDocument
from policies.spec import RouteSpec, problems
from tests.app.control.specs import specs
from tests.app.control.stage import Json, Stage, arm, document, faults

SECRET = "hunter2-is-a-secret"
SCORE = {"name": "score", "from": {"response": "/score"}, "type": "numeric"}
BINARY = {"name": "conversion", "kind": "binary"}
BANDIT = {"mode": "thompson", "reward": {"metric": "conversion"}}
HOUR = {"name": "hour", "from": {"header": "X-Hour"}, "type": "numeric", "min": 0, "max": 23}
APP = {"name": "app", "from": {"query": "app"}, "type": "boolean"}

BAD: list[tuple[Json, str, str]] = [
    ({"split": {"weights": {"old": 9_000, "new": 999}}}, "split.weights", "sum to 10000, got 9999"),
    ({"split": {"weights": {"old": 9_000, "new": 1_001}}}, "split.weights", "sum to 10000, got 10001"),
    ({"split": {"weights": {"old": 11_000, "new": -1_000}}}, "split.weights", "[0, 10000], got 11000"),
    ({"split": {"weights": {"old": 9_000, "gone": 1_000}}}, "split.weights", "unknown arm 'gone'"),
    ({"split": {"weights": {"old": 9_000.5, "new": 999.5}}}, "split.weights.old", "integer"),
    ({"split": {"weights": {"old": True, "new": 9_999}}}, "split.weights.old", "integer"),
    ({"split": {"weights": {}}}, "split.weights", "sum to 10000, got 0"),
    ({"split": {}}, "split", "must name weights in mode weights"),
    ({"split": {"mode": "luck"}}, "split.mode", "got 'luck'"),
    ({"split": {"mode": "thompson"}}, "split", "must name reward in mode thompson"),
    ({"split": {**BANDIT, "weights": {}}}, "split", "must leave out weights in mode thompson"),
    ({"split": {"weights": {"old": 10_000}, "floor": 1}}, "split", "must leave out floor in mode weights"),
    ({"split": {**BANDIT, "reward": {}}}, "split.reward", "exactly one of metric and expression"),
    ({"split": {**BANDIT, "reward": {"metric": "profit"}}}, "split.reward", "['conversion'], got 'profit'"),
    ({"split": {**BANDIT, "reward": {"expression": "2 +"}}}, "split.reward", "must go on with a metric"),
    ({"split": {**BANDIT, "reward": {"expression": "2"}}}, "split.reward", "must name a metric"),
    ({"split": {**BANDIT, "floor": 5_001}}, "split.floor", "[0, 5000], got 5001"),
    ({"split": {**BANDIT, "floor": -1}}, "split.floor", "[0, 5000], got -1"),
    ({"split": {**BANDIT, "cap": {"newer": 1}}}, "split.cap.newer", "['old', 'new'], got 'newer'"),
    ({"split": {**BANDIT, "cap": {"new": 99}}}, "split.cap.new", "[100, 10000], got 99"),
    ({"split": {**BANDIT, "cap": {"new": 5_000, "old": 4_999}}}, "split.cap", "over all arms, got 9999"),
    ({"split": {**BANDIT, "discount": 0}}, "split.discount", "(0, 1], got 0"),
    ({"split": {**BANDIT, "discount": 1.01}}, "split.discount", "(0, 1], got 1.01"),
    ({"split": {**BANDIT, "warm_up": 0}}, "split.warm_up", "[1, 1000000], got 0"),
    ({"arms": [arm("old", role="champion"), arm("new", role="champion")]}, "arms", "one champion, got 2"),
    ({"arms": [arm("old"), arm("new")]}, "arms", "exactly one champion, got 0"),
    ({"arms": [arm("old", role="king"), arm("new")]}, "arms.0.role", "got 'king'"),
    ({"arms": [*document()["arms"], arm("new")]}, "arms", "different names, got 'new' 2 times"),
    ({"arms": [arm("Old One", role="champion")]}, "arms.0.name", "must match [a-z0-9]"),
    ({"metrics": [BINARY, BINARY]}, "metrics", "different names, got 'conversion' 2 times"),
    ({"metrics": [{"name": "error", "kind": "binary"}]}, "metrics.0.name", "that the gateway supplies"),
    ({"metrics": [{"name": "cpa", "kind": "ratio"}]}, "metrics.0.kind", "binary or continuous, got 'ratio'"),
    ({"metrics": [BINARY | {"kind": "maybe"}]}, "metrics.0.kind", "got 'maybe'"),
    ({"metrics": [BINARY | {"window": "24 hours"}]}, "metrics.0.window", "ms, s, m, h, d, got '24 hours'"),
    ({"metrics": [BINARY | {"window": "91d"}]}, "metrics.0.window", "[1, 7776000000] ms, got 7862400000"),
    ({"policy": {"goal": "profit"}}, "policy.goal", "['conversion'], got 'profit'"),
    ({"policy": {"guardrails": [{"metric": "cost"}]}}, "policy.guardrails.0.metric", "got 'cost'"),
    ({"policy": {"confidence": 1.5}}, "policy.confidence", "[0.5, 1), got 1.5"),
    ({"policy": {"confidence": "0.99"}}, "policy.confidence", "number, got '0.99'"),
    ({"policy": {"confidence": True}}, "policy.confidence", "number, got True"),
    ({"policy": {"winning_days": 0}}, "policy.winning_days", "[1, 1000000000], got 0"),
    ({"policy": {"winning_days": "3"}}, "policy.winning_days", "integer, got '3'"),
    ({"policy": {"horizon_days": 2}}, "policy.horizon_days", "minimum_days 7, got 2"),
    ({"policy": {"ramp": [5_000, 2_500, 10_000]}}, "policy.ramp", "end at 10000, got [5000, 2500, 10000]"),
    ({"policy": {"ramp": [5_000]}}, "policy.ramp", "end at 10000, got [5000]"),
    ({"policy": {"bake": "-1h"}}, "policy.bake", "got '-1h'"),
    ({"policy": {"day": {"length": "25h"}}}, "policy.day.length", "86400000] ms, got 90000000"),
    ({"policy": {"day": {"timezone": "Mars/Base"}}}, "policy.day.timezone", "Berlin, got 'Mars/Base'"),
    ({"policy": {"day": {"timezone": "../etc/passwd"}}}, "policy.day.timezone", "got '../etc/passwd'"),
    ({"policy": {"approval": "perhaps"}}, "policy.approval", "got 'perhaps'"),
    ({"unit": {}}, "unit", "exactly one of header, json, cookie, query, got none"),
    ({"unit": {"header": "A", "cookie": "b"}}, "unit", "exactly one of header, json, cookie, query, got"),
    ({"unit": {"query": ""}}, "unit.query", "at least 1 character"),
    ({"unit": {"json": "user"}}, "unit.json", "a JSON pointer such as /user/id, got 'user'"),
    ({"unit": {"header": "X User"}}, "unit.header", "the name of a header, got 'X User'"),
    ({"stickiness": {"mode": "always"}}, "stickiness.mode", "got 'always'"),
    ({"stickiness": {"keep": "1d"}}, "stickiness", "must leave out keep in mode hash, got '1d'"),
    ({"stickiness": {"mode": "first_arm"}}, "stickiness.mode", "without a unit"),
    ({"context": [HOUR, HOUR]}, "context.1.name", "must differ from the others, got 'hour' as in 0"),
    ({"context": [{**HOUR, "min": 24}]}, "context.0.max", "got 23"),
    ({"context": [{**HOUR, "max": None}]}, "context.0", "must name min and max for a numeric feature"),
    ({"context": [{**HOUR, "values": ["1"]}]}, "context.0.values", "numeric"),
    ({"context": [{**HOUR, "default": 24}]}, "context.0.default", "got 24"),
    ({"context": [{**HOUR, "from": {"json": "hour"}}]}, "context.0.from.json", "JSON pointer"),
    ({"context": [{**HOUR, "from": {}}]}, "context.0.from", "exactly one of header, json, cookie, query"),
    ({"context": [{**HOUR, "type": "time"}]}, "context.0.type", "got 'time'"),
    ({"segments": ["app"]}, "segments.0", "must be a categorical or boolean feature of the context [], got"),
    ({"segments": ["app", "hour"], "context": [APP, HOUR]}, "segments.1", "context ['app'], got 'hour'"),
    ({"segments": ["app", "app"], "context": [APP]}, "segments", "different names, got 'app' 2 times"),
    ({"match": {}}, "match", "path_prefix, host or both, got neither"),
    ({"match": {"path_prefix": ""}}, "match.path_prefix", "starts with /"),
    ({"match": {"path_prefix": "ads"}}, "match.path_prefix", "starts with /"),
    ({"match": {"path_prefix": "/v1/outcomes"}}, "match.path_prefix", "must not be reserved"),
    ({"match": {"path_prefix": "/healthz/x"}}, "match.path_prefix", "must not be reserved"),
    ({"match": {"host": "ads.example.com:80"}}, "match.host", "without a port, got 'ads.example.com:80'"),
    ({"upstream": {"timeout": "0s"}}, "upstream.timeout", "[1, 3600000] ms, got 0"),
    ({"upstream": {"timeout": 2}}, "upstream.timeout", "string, got 2"),
    ({"upstream": {"fallback": "yes"}}, "upstream.fallback", "boolean, got 'yes'"),
    ({"upstream": {"retry_percent": 11}}, "upstream.retry_percent", "[0, 10], got 11"),
    ({"upstream": {"hedge_after": "2s"}}, "upstream.hedge_after", "less than the timeout 2000 ms, got 2000"),
    ({"upstream": {"ejection": {"base": "1s"}}}, "upstream.ejection.base", "is not a known field"),
    ({"upstream": {"ejection": {"interval": "1ms"}}}, "upstream.ejection.interval", "3600000] ms, got 1"),
    ({"upstream": {"health_check": {}}}, "upstream.health_check.path", "is required"),
    ({"upstream": {"health_check": {"path": "x"}}}, "upstream.health_check.path", "starts with /"),
    ({"predictions": [SCORE | {"name": "Score"}]}, "predictions.0.name", "must match [a-z0-9]"),
    ({"predictions": [SCORE | {"from": {"response": "s"}}]}, "predictions.0.from.response", "got 's'"),
    ({"predictions": [SCORE | {"from": {"json": "/s"}}]}, "predictions.0.from.json", "is not a known field"),
    ({"predictions": [SCORE | {"type": "text"}]}, "predictions.0.type", "got 'text'"),
    ({"predictions": [SCORE, SCORE]}, "predictions", "different names, got 'score' 2 times"),
    (
        {"arms": [arm("old", role="champion", tls={"ca": "/ca.pem"}), arm("new")]},
        "arms.0.tls",
        "unless the url has scheme https, got 'http'",
    ),
    ({"colour": "red"}, "colour", "is not a known field"),
    ({"policy": {"winning_day": 3}}, "policy.winning_day", "is not a known field"),
    ({"arms": [arm("old", role="champion", uri="x"), arm("new")]}, "arms.0.uri", "is not a known field"),
    ({"arms": "old"}, "arms", "list, got 'old'"),
    ({"split": None}, "split", "must be"),
]
URLS = [
    ("ftp://127.0.0.1/score", "scheme http, https or http+unix, got 'ftp'"),
    ("127.0.0.1", "scheme http, https or http+unix, got 'none'"),
    ("", "scheme http, https or http+unix, got 'none'"),
    ("http://", "must name a host"),
    ("http://127.0.0.1:99999/", "is not a URL"),
    ("http://127.0.0.1:0/", "a port above 0"),
    ("http://169.254.169.254/latest/meta-data", "link-local or metadata address"),
    ("http://[fe80::1]/", "link-local or metadata address"),
    ("http://2852039166/", "four decimal numbers"),
    ("http://metadata.google.internal/", "link-local or metadata address"),
    ("http://127.0.0.1/sc ore", "without credentials, a fragment or spaces"),
]


@pytest.mark.parametrize(("changes", "field", "message"), BAD, ids=[case[1] for case in BAD])
async def test_a_bad_document_is_refused_by_field_and_nothing_changes(
    ads: Stage, changes: Json, field: str, message: str
) -> None:
    """422 naming field, bound and value, on a route that runs; it goes on to the byte as it was."""
    before = await ads.state()
    for dry_run in (True, False):
        answer = await ads.put(document(**changes), dry_run=dry_run)
        assert answer.status_code == 422, answer.text
        assert message in faults(answer)[field]
        assert f"{field} " in answer.json()["detail"]
    assert await ads.state() == before
    with pytest.raises(BadDeclaration) as refused:
        parse_route(document(**changes))
    assert any(error.field == field and message in error.message for error in refused.value.errors)


@pytest.mark.parametrize(("url", "message"), URLS)
async def test_an_arm_is_reached_at_a_place_that_may_be_called(ads: Stage, url: str, message: str) -> None:
    """Other schemes, no host, and the addresses that clouds keep secrets at are refused."""
    before = await ads.state()
    answer = await ads.put(document(arms=[arm("old", role="champion", url=url), arm("new")]))
    assert answer.status_code == 422
    assert message in faults(answer)["arms.0.url"]
    assert await ads.state() == before


async def test_everything_that_is_wrong_is_said_at_once(ads: Stage) -> None:
    """One answer names the sum, the champions, the scheme and the metric."""
    answer = await ads.put(
        document(
            arms=[arm("old", role="champion"), arm("new", role="champion", url="gopher://x")],
            split={"weights": {"old": 1}},
            policy={"goal": "profit"},
        )
    )
    assert set(faults(answer)) == {"arms", "arms.1.url", "split.weights", "policy.goal"}


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer\n{SECRET}"},
        {"Authorization": [SECRET]},
        {"Authorization": {"env": "TOKEN", "value": SECRET}},
        {"Authorization": {"env": SECRET, "more": SECRET}},
        {"Host": SECRET},
        {"a b": SECRET},
        [SECRET],
        SECRET,
    ],
)
async def test_a_headers_value_is_never_repeated_in_an_error(ads: Stage, headers: object) -> None:
    """A literal value may be a secret: neither declaring the route nor the arm echoes it."""
    arms = [arm("old", role="champion"), arm("new", headers=headers)]
    refused = [
        await ads.put(document(arms=arms)),
        await ads.ask("POST", "/routes/ads/arms", arm("third", headers=headers)),
        await ads.ask("PATCH", "/routes/ads/arms/new", {"headers": headers}),
    ]
    for answer in refused:
        assert answer.status_code == 422, answer.text
        assert any("headers" in field for field in faults(answer))
        assert SECRET not in answer.text


async def test_a_secret_by_reference_is_not_known_here(ads: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers, database and snapshot name the variable, never its value."""
    monkeypatch.setenv("MODEL_TOKEN", SECRET)
    headers = {"Authorization": {"env": "MODEL_TOKEN"}, "X-Tier": "gold"}
    answer = await ads.put(document(arms=[arm("old", role="champion", headers=headers), arm("new")]))
    assert answer.json()["document"]["arms"][0]["headers"] == headers
    await ads.post("promote")
    await ads.ask("PATCH", "/routes/ads/arms/new", {"headers": headers})
    paths = ("", "/ads", "/ads/rollout", "/ads/timeline", "/ads/evaluations", "/ads/champion")
    texts = [(await ads.ask("GET", f"/routes{path}")).text for path in paths]
    texts += [answer.text, (await ads.http.get("/metrics")).text]
    assert not any(SECRET in text for text in texts)
    for path in ads.folder.iterdir():
        assert SECRET.encode() not in path.read_bytes()


def test_a_file_is_checked_as_the_api_checks() -> None:
    """Its faults carry the fields, and the message the route's name."""
    with pytest.raises(BadDeclaration, match="route 'ads': colour is not a known field"):
        parse_route(document(colour="red"))
    with pytest.raises(BadDeclaration, match="route None: route is required"):
        parse_route({})
    with pytest.raises(BadDeclaration):
        parse_route({1: 2, "route": "ads"})  # type: ignore[dict-item] # a key that YAML allows


@given(specs())
@settings(max_examples=60)
def test_a_route_survives_the_way_to_the_wire_and_back(spec: RouteSpec) -> None:
    """As a document, as JSON values, and as a file of YAML: what comes back is what went out."""
    assert problems(spec) == []
    exported = document_of(spec)
    assert spec_of(exported) == spec
    assert parse_route(plain(exported)) == spec
    (read,) = load_configuration(yaml.safe_dump(plain(exported), sort_keys=False), "x").routes
    assert parse_route(read) == spec


def test_what_a_document_does_not_say_is_written_out() -> None:
    """An export names every default, so a later version with other defaults changes nothing."""
    exported: dict[str, Any] = plain(document_of(parse_route(document())))
    assert exported.keys() == RouteDocument.model_fields.keys() - {"unit"}
    assert exported["policy"].keys() == PolicyDocument.model_fields.keys() - {"goal"}
    assert exported["match"] == {"path_prefix": "/r/ads"}
