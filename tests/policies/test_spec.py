"""A declaration that cannot be is refused with its field, its bound and its value; all faults at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from policies.errors import BadSpec
from policies.metrics import Metric
from policies.spec import ArmSpec, Guardrail, Policy, RouteSpec, arm_problems, problems
from policies.types import Aggregate, Kind
from routing.features import Source, SourceKind
from routing.types import ArmHeader, Match, Role, Upstream

CHAMPION = ArmSpec("logreg-v6", "http://127.0.0.1:9001/score", Role.CHAMPION)
CHALLENGER = ArmSpec("gbm-v7", "http://10.0.0.7:9002/score?x=1")
RETIRED = ArmSpec("old", "http://model", Role.RETIRED)
CONVERSION = Metric("conversion", Kind.BINARY)
REVENUE = Metric("revenue", Kind.CONTINUOUS)
GOOD = RouteSpec(
    name="ad-bidder",
    arms=(CHAMPION, CHALLENGER, RETIRED),
    weights={"logreg-v6": 9_000, "gbm-v7": 1_000},
    match=Match(path_prefix="/r/ad-bidder"),
    metrics=(CONVERSION, REVENUE),
)


def found(spec: RouteSpec) -> list[tuple[str, str]]:
    """Field and message of everything that is wrong."""
    return [(problem.field, problem.message) for problem in problems(spec)]


def of_policy(policy: Policy) -> RouteSpec:
    """The good route with another policy."""
    return replace(GOOD, policy=policy)


def of_guardrail(guardrail: Guardrail) -> RouteSpec:
    """The good route with one other guardrail."""
    return of_policy(Policy(guardrails=(Guardrail(), guardrail)))


def of_match(path_prefix: str | None = None, host: str | None = None) -> RouteSpec:
    """The good route, matched otherwise."""
    return replace(GOOD, match=Match(path_prefix=path_prefix, host=host))


def of_unit(kind: SourceKind, name: str) -> RouteSpec:
    """The good route with another unit."""
    return replace(GOOD, unit=Source(kind=kind, name=name))


def of_weights(weights: Mapping[str, int]) -> RouteSpec:
    """The good route, divided otherwise."""
    return replace(GOOD, weights=weights)


def of_metric(metric: Metric) -> RouteSpec:
    """The good route with a third metric."""
    return replace(GOOD, metrics=(CONVERSION, REVENUE, metric))


def of_upstream(upstream: Upstream) -> RouteSpec:
    """The good route, called otherwise."""
    return replace(GOOD, upstream=upstream)


def test_a_sound_declaration_has_no_problems() -> None:
    """Loopback and private arms, a retired arm without weight, and every default."""
    assert found(GOOD) == []


CASES: list[tuple[RouteSpec, str, str]] = [
    (replace(GOOD, name="Ad"), "route", "must match [a-z0-9][a-z0-9._-]{0,62}, got 'Ad'"),
    (replace(GOOD, name="a" * 64), "route", "must match [a-z0-9][a-z0-9._-]{0,62}, got 'aaa"),
    (replace(GOOD, name="a\n"), "route", "must match [a-z0-9][a-z0-9._-]{0,62}, got 'a\\n'"),
    (of_match(), "match", "must name path_prefix, host or both, got neither"),
    (of_match("r/x"), "match.path_prefix", "must be a path that starts with /"),
    (of_match("/r//x"), "match.path_prefix", "must be a path that starts with /"),
    (of_match("/r?x"), "match.path_prefix", "must be a path that starts with /"),
    (of_match("/r/ü"), "match.path_prefix", "must be a path that starts with /"),
    (of_match("/r/../v1"), "match.path_prefix", "must be a path that starts with /"),
    (of_match("/r/%2E"), "match.path_prefix", "must be a path that starts with /"),
    (of_match(""), "match.path_prefix", "must be a path that starts with /"),
    (of_match("/r%2F..%2fx"), "match.path_prefix", "must be a path that starts with /"),
    (of_match("/%61x"), "match.path_prefix", "must percent-encode nothing but what needs it, by two"),
    (of_match("/r/a%7Eb"), "match.path_prefix", "must percent-encode nothing but what needs it, by two"),
    (of_match("/r/100%"), "match.path_prefix", "must percent-encode nothing but what needs it, by two"),
    (of_match("/v1/decide/x"), "match.path_prefix", "must not be reserved (/v1/decide, "),
    (of_match("/metrics/"), "match.path_prefix", "must not be reserved (/v1/decide, "),
    (of_match("/ofrep/v1"), "match.path_prefix", "must not be reserved (/v1/decide, "),
    (of_match(host="example.org:80"), "match.host", "must be a host name or address without a port, got"),
    (of_match(host=""), "match.host", "must be a host name or address without a port, got ''"),
    (
        of_unit(SourceKind.JSON, "user/id"),
        "unit.json",
        "must be a JSON pointer such as /user/id, got 'user/id'",
    ),
    (of_unit(SourceKind.JSON, "/a~2"), "unit.json", "must be a JSON pointer such as /user/id, got '/a~2'"),
    (of_unit(SourceKind.HEADER, "X User"), "unit.header", "must be the name of a header, got 'X User'"),
    (of_unit(SourceKind.COOKIE, ""), "unit.cookie", "must be the name of a cookie, got ''"),
    (
        replace(GOOD, arms=(CHAMPION, CHALLENGER, replace(RETIRED, name="GBM"))),
        "arms.2.name",
        "must match [a-z0-9][a-z0-9._-]{0,62}, got 'GBM'",
    ),
    (
        replace(GOOD, arms=(CHAMPION, replace(CHALLENGER, role=Role.CHAMPION))),
        "arms",
        "must hold exactly one champion, got 2: ['logreg-v6', 'gbm-v7']",
    ),
    (
        replace(GOOD, arms=(replace(CHAMPION, role=Role.CHALLENGER), CHALLENGER)),
        "arms",
        "must hold exactly one champion, got 0: []",
    ),
    (
        replace(GOOD, arms=(CHAMPION, CHALLENGER, CHALLENGER)),
        "arms",
        "must have different names, got 'gbm-v7' 2 times",
    ),
    (of_weights({"logreg-v6": 9_000}), "split.weights", "cannot be: weights must sum to 10000, got 9000"),
    (of_weights({"x": 10_000}), "split.weights", "cannot be: weights names unknown arm 'x'"),
    (
        of_weights({"logreg-v6": 9_000, "old": 1_000}),
        "split.weights",
        "cannot be: weights names unknown arm 'old'",
    ),
    (
        of_weights({"logreg-v6": 10_001, "gbm-v7": -1}),
        "split.weights",
        "cannot be: weights.logreg-v6 must be in [0, 10000], got 10001",
    ),
    (of_metric(Metric("", Kind.BINARY)), "metrics.2.name", "must match [a-z0-9][a-z0-9._-]{0,62}, got ''"),
    (
        of_metric(Metric("error", Kind.BINARY)),
        "metrics.2.name",
        "must not be one that the gateway supplies, got 'error'",
    ),
    (
        of_metric(Metric("latency_ms", Kind.CONTINUOUS)),
        "metrics.2.name",
        "must not be one that the gateway supplies, got 'latency_ms'",
    ),
    (of_metric(Metric("cpa", Kind.RATIO)), "metrics.2.kind", "must be binary or continuous, got 'ratio'"),
    (of_metric(Metric("clicks", Kind.COUNT)), "metrics.2.kind", "must be binary or continuous, got 'count'"),
    (
        of_metric(Metric("x", Kind.BINARY, aggregate=Aggregate.SUM)),
        "metrics.2.aggregate",
        "must not be sum for a binary metric, got 'sum'",
    ),
    (
        of_metric(Metric("x", Kind.BINARY, window_ms=0)),
        "metrics.2.window",
        "must be in [1, 7776000000] ms, got 0",
    ),
    (
        of_metric(Metric("x", Kind.BINARY, window_ms=7_776_000_001)),
        "metrics.2.window",
        "must be in [1, 7776000000] ms, got 7776000001",
    ),
    (of_metric(REVENUE), "metrics", "must have different names, got 'revenue' 2 times"),
    (
        of_policy(Policy(goal="profit")),
        "policy.goal",
        "must be one of the route's metrics ['conversion', 'revenue'], got 'profit'",
    ),
    (of_policy(Policy(confidence=0.49)), "policy.confidence", "must be in [0.5, 1), got 0.49"),
    (of_policy(Policy(confidence=float("nan"))), "policy.confidence", "must be in [0.5, 1), got nan"),
    (of_policy(Policy(losing_confidence=1.0)), "policy.losing_confidence", "must be in [0.5, 1), got 1.0"),
    (of_policy(Policy(winning_days=0)), "policy.winning_days", "must be in [1, 1000000000], got 0"),
    (of_policy(Policy(minimum_days=0)), "policy.minimum_days", "must be in [1, 1000000000], got 0"),
    (of_policy(Policy(losing_days=0)), "policy.losing_days", "must be in [1, 1000000000], got 0"),
    (of_policy(Policy(min_samples=0)), "policy.min_samples", "must be in [1, 1000000000], got 0"),
    (
        of_policy(Policy(horizon_days=10**10)),
        "policy.horizon_days",
        "must be in [1, 1000000000], got 10000000000",
    ),
    (of_policy(Policy(horizon_days=6)), "policy.horizon_days", "must be at least minimum_days 7, got 6"),
    (of_policy(Policy(min_conversions=-1)), "policy.min_conversions", "must be in [0, 1000000000], got -1"),
    (of_policy(Policy(max_expected_loss=-0.1)), "policy.max_expected_loss", "must be in [0, 10], got -0.1"),
    (of_policy(Policy(minimum_effect=11.0)), "policy.minimum_effect", "must be in [0, 10], got 11.0"),
    (of_policy(Policy(bake_ms=-1)), "policy.bake", "must be in [0, 31536000000] ms, got -1"),
    (of_policy(Policy(day_length_ms=999)), "policy.day.length", "must be in [1000, 86400000] ms, got 999"),
    (of_policy(Policy(ramp_bp=())), "policy.ramp", "must rise from above 0 and end at 10000, got []"),
    (
        of_policy(Policy(ramp_bp=(0, 10_000))),
        "policy.ramp",
        "must rise from above 0 and end at 10000, got [0,",
    ),
    (of_policy(Policy(ramp_bp=(500, 500, 10_000))), "policy.ramp", "must rise from above 0 and end at 10000"),
    (of_policy(Policy(ramp_bp=(2_500, 5_000))), "policy.ramp", "must rise from above 0 and end at 10000"),
    (
        of_guardrail(Guardrail(metric="revenue")),
        "policy.guardrails.1.metric",
        "must be a binary metric of the route ['error', 'conversion'], got 'revenue'",
    ),
    (
        of_guardrail(Guardrail(max_relative_increase=-0.1)),
        "policy.guardrails.1.max_relative_increase",
        "must be in [0, 100], got -0.1",
    ),
    (
        of_guardrail(Guardrail(confidence=1.0)),
        "policy.guardrails.1.confidence",
        "must be in [0.5, 1), got 1.0",
    ),
    (
        of_guardrail(Guardrail(min_events=0)),
        "policy.guardrails.1.min_events",
        "must be in [1, 1000000000], got 0",
    ),
    (of_upstream(Upstream(timeout_ms=0)), "upstream.timeout", "must be in [1, 3600000] ms, got 0"),
    (
        of_upstream(Upstream(connect_timeout_ms=60_001)),
        "upstream.connect_timeout",
        "must be in [1, 60000] ms, got 60001",
    ),
    (of_upstream(Upstream(max_connections=0)), "upstream.max_connections", "must be in [1, 65536], got 0"),
]


@pytest.mark.parametrize(("spec", "field", "message"), CASES, ids=[f"{c[1]}: {c[2][:30]}" for c in CASES])
def test_one_fault_is_one_problem(spec: RouteSpec, field: str, message: str) -> None:
    """Field as on the wire, bound, and the value that was given; nothing else is complained about."""
    ((where, what),) = found(spec)
    assert where == field
    assert what.startswith(message)


def test_all_faults_are_named_at_once() -> None:
    """In the order of the declaration."""
    spec = replace(
        of_policy(Policy(confidence=2.0, ramp_bp=())), name="", weights={}, metrics=(CONVERSION, CONVERSION)
    )
    fields = [problem.field for problem in problems(spec)]
    assert fields == ["route", "split.weights", "metrics", "policy.confidence", "policy.ramp"]
    assert str(BadSpec("policy.bake", "must be 1")) == "policy.bake must be 1"


@pytest.mark.parametrize(
    "spec",
    [
        of_match("/"),
        of_match("/v1/chat/completions"),
        of_match("/v1/decider"),
        of_match("/v1/a%20b%C3%BC"),
        of_match("/v1/..x/.y"),
        of_match("/metricsx"),
        of_match(host="api.example.org"),
        of_match("/r", "[::1]"),
        of_unit(SourceKind.JSON, "/user/a~1b"),
        of_unit(SourceKind.QUERY, "user id"),
        of_policy(Policy(guardrails=())),
        of_policy(Policy(guardrails=(Guardrail(metric="conversion"),))),
        of_policy(Policy(minimum_days=1, winning_days=1, horizon_days=1, min_conversions=0)),
        of_policy(Policy(ramp_bp=(1, 9_999, 10_000))),
        replace(GOOD, metrics=()),
        of_weights({"logreg-v6": 10_000}),
    ],
)
def test_what_can_be_is_let_through(spec: RouteSpec) -> None:
    """The other side of each bound: paths that only begin like reserved ones, no metrics, no guardrails."""
    assert found(spec) == []


def test_the_goal_is_the_first_metric_unless_said() -> None:
    """None without metrics, and the named one otherwise."""
    assert GOOD.goal == CONVERSION
    assert of_policy(Policy(goal="revenue")).goal == REVENUE
    assert replace(GOOD, metrics=()).goal is None
    assert (GOOD.champion, GOOD.metric("x")) == (CHAMPION, None)


def of_url(url: str) -> list[str]:
    """What is wrong with an arm at this URL."""
    return [problem.message for problem in arm_problems(replace(CHALLENGER, url=url), "arm")]


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data",
        "http://169.254.169.254./",
        "http://169.254.170.2/",
        "http://2852039166/",
        "http://0xa9fea9fe/",
        "http://0XA9.0xFE.43518/",
        "http://0251.0376.0251.0376/",
        "http://169.254.43518/",
        "http://169.16689662/",
        "http://0169.254.169.254/",
        "http://[::ffff:169.254.169.254]/",
        "http://[::FFFF:A9FE:A9FE]/",
        "http://[0:0:0:0:0:ffff:a9fe:a9fe%1]/",
        "http://[fe80::1]/",
        "http://[fe80::1%eth0]/",
        "http://[fd00:ec2::254]/",
        "http://[fd00:0ec2:0:0:0:0:0:254]/",
        "http://[fd00:ec2::254%1]/",
        "http://100.100.100.200/",
        "http://[::ffff:100.100.100.200]/",
        "http://metadata.google.internal/computeMetadata",
        "http://METADATA.google.internal./",
        "http://metadata.goog/",
        "http://metadata/",
        "http://169。254。169。254/",
        "http://１６９.254.169.254/",
        "http://169.254.169.254\t/",
        " http://169.254.169.254/",
    ],
)
def test_metadata_addresses_are_refused_in_every_disguise(url: str) -> None:
    """As one number, octal, hexadecimal, mapped, with a zone, or in wide letters that resolvers narrow."""
    assert of_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:9001/score",
        "http://localhost:9001",
        "http://[::1]:9001/",
        "http://10.1.2.3/",
        "http://172.16.0.1/",
        "http://192.168.0.10/",
        "http://[fd12::1]/",
        "http://model-7.svc.cluster.local:8080/v1/score",
        "http://169.255.169.254/",
        "http://metadata.example.org/",
        "http://1und1.example/",
        "http://model/v1/..x/.y/z.?at=/../",
    ],
)
def test_loopback_private_and_public_addresses_are_allowed(url: str) -> None:
    """And names that only look a little like what is refused."""
    assert of_url(url) == []


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://model/", "must have scheme http, https or http+unix, got 'ftp'"),
        ("model:9001", "must have scheme http, https or http+unix, got 'model'"),
        ("//model/", "must have scheme http, https or http+unix, got 'none'"),
        ("http:///score", "must name a host and a port above 0, got 'http:///score'"),
        ("http://model:0/", "must name a host and a port above 0, got 'http://model:0/'"),
        ("http://model:99999/", "is not a URL ("),
        ("http://model:x/", "is not a URL ("),
        ("http://[::1/", "is not a URL ("),
        (
            "http://model/#top",
            "must be in ASCII, without credentials, a fragment or spaces, got host 'model'",
        ),
        ("http://model/a b", "must be in ASCII, without credentials, a fragment or spaces, got host 'model'"),
        ("http://model/..", "must have a path without dot segments, got '/..'"),
        ("http://model/a/%2e%2E/b", "must have a path without dot segments, got '/a/%2e%2E/b'"),
        ("http://model/a%2f.%5cb", "must have a path without dot segments, got "),
        ("http://model/a/..;x/b?y", "must have a path without dot segments, got '/a/..;x/b'"),
        ("http+unix://%2Frun%2Fmodel.sock/./x", "must have a path without dot segments, got '/./x'"),
        (
            "http://model/\x7f",
            "must be in ASCII, without credentials, a fragment or spaces, got host 'model'",
        ),
    ],
)
def test_an_address_that_cannot_be_called_is_refused(url: str, message: str) -> None:
    """With what is wrong with it."""
    assert any(found.startswith(message) for found in of_url(url))


def test_credentials_in_a_url_are_refused_and_not_repeated() -> None:
    """A password that was typed into a URL does not come back in an error."""
    (message,) = of_url("http://user:hunter2@model/")
    assert message.endswith("got host 'model'")


def of_header(header: ArmHeader) -> list[tuple[str, str]]:
    """What is wrong with an arm that is sent this header."""
    arm = replace(CHALLENGER, headers=(header,))
    return [(problem.field, problem.message) for problem in arm_problems(arm, "arms.0")]


@pytest.mark.parametrize(
    ("header", "field", "message"),
    [
        (ArmHeader(name="X Key", value="1"), "arms.0.headers", "must be named by field names, got 'X Key'"),
        (
            ArmHeader(name="Host", value="x"),
            "arms.0.headers.Host",
            "must not be a header that the gateway sets",
        ),
        (
            ArmHeader(name="Kingmaker-Arm", value="x"),
            "arms.0.headers.Kingmaker-Arm",
            "must not be a header that",
        ),
        (ArmHeader(name="K", env="A-B"), "arms.0.headers.K.env", "must be the name of a variable, got 'A-B'"),
        (ArmHeader(name="K", value="a\r\nb"), "arms.0.headers.K", "must be printable characters on one line"),
    ],
)
def test_a_header_that_would_break_the_request_is_refused(
    header: ArmHeader, field: str, message: str
) -> None:
    """Names are tokens, values one line, and what the gateway sets itself is its own."""
    ((where, what),) = of_header(header)
    assert where == field
    assert what.startswith(message)
    assert of_header(ArmHeader(name="Authorization", env="MODEL_TOKEN")) == []


@pytest.mark.parametrize(
    "name",
    [
        *("Content_Length", "TRANSFER_ENCODING", "kingmaker_arm", "Kingmaker-Force_Arm"),
        *("X-Forwarded-For", "x_forwarded_anything", "Via", "FORWARDED", "X_Real-IP"),
        *("traceparent", "TraceState", "baggage"),
    ],
)
def test_a_header_of_the_gateway_is_refused_however_it_is_written(name: str) -> None:
    """In any case, and with _ for -: so a server may read it all the same."""
    ((where, what),) = of_header(ArmHeader(name=name, value="secret"))
    assert where == f"arms.0.headers.{name}"
    assert what.startswith("must not be a header that the gateway sets itself, got ")
    assert "secret" not in what


@pytest.mark.parametrize("second", ["x-model-key", "X_Model_Key", "x-MODEL_key"])
def test_two_headers_that_a_server_may_take_for_one_are_refused(second: str) -> None:
    """The second is named, with the one before it."""
    headers = tuple(ArmHeader(name=name, value="1") for name in ("X-Model-Key", "X-Model", second))
    (problem,) = arm_problems(replace(CHALLENGER, headers=headers), "arms.0")
    assert problem.field == f"arms.0.headers.{second}"
    assert problem.message.endswith("got 'X-Model-Key' as well")


@pytest.mark.parametrize(
    "url", ["https://me:hunter2@model/", "http://me:hunter2@169.254.169.254/", "//me:hunter2@m"]
)
def test_no_message_repeats_credentials(url: str) -> None:
    """Whatever else is wrong with a URL, a password in it stays out of answers and logs."""
    assert "hunter2" not in " ".join(str(error) for error in arm_problems(ArmSpec("a", url), "arm"))
