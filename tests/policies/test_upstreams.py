"""How arms are called has its bounds; what lies beyond is named by field, bound and value."""

from __future__ import annotations

import pytest

from policies.spec import ArmSpec, RouteSpec, arm_problems, problems
from policies.upstreams import tls_problems, upstream_problems
from routing.types import Ejection, HealthCheck, Match, Prediction, Role, Tls, Upstream

HTTPS = "https://models.example.com/score"
CHECK = HealthCheck(path="/healthz")

UPSTREAMS: list[tuple[Upstream, str, str]] = [
    (Upstream(max_waiting=-1), "max_waiting", "must be in [0, 1000000], got -1"),
    (Upstream(retry_percent=11), "retry_percent", "must be in [0, 10], got 11"),
    (Upstream(hedge_ms=0), "hedge_after", "must be at least 1 ms and less than the timeout 2000 ms, got 0"),
    (Upstream(hedge_ms=2_000), "hedge_after", "must be at least 1 ms and less than the timeout 2000 ms"),
    (
        Upstream(ejection=Ejection(consecutive_failures=0)),
        "ejection.consecutive_failures",
        "must be in [1, 1000], got 0",
    ),
    (
        Upstream(ejection=Ejection(failure_percent=101)),
        "ejection.failure_percent",
        "must be in [1, 100], got 101",
    ),
    (
        Upstream(ejection=Ejection(minimum_requests=0)),
        "ejection.minimum_requests",
        "must be in [1, 1000000], got 0",
    ),
    (
        Upstream(ejection=Ejection(interval_ms=99)),
        "ejection.interval",
        "must be in [100, 3600000] ms, got 99",
    ),
    (Upstream(ejection=Ejection(base_ms=0)), "ejection.base_time", "must be in [1, 86400000] ms, got 0"),
    (
        Upstream(ejection=Ejection(longest_ms=86_400_001)),
        "ejection.longest_time",
        "must be in [1, 86400000] ms, got 86400001",
    ),
    (
        Upstream(ejection=Ejection(longest_ms=9_999)),
        "ejection.longest_time",
        "must be at least base_time 10000 ms, got 9999",
    ),
    (
        Upstream(health_check=HealthCheck(path="healthz")),
        "health_check.path",
        "must be a path that starts with /, in ASCII, without spaces or a fragment, got 'healthz'",
    ),
    (Upstream(health_check=HealthCheck(path="/a b")), "health_check.path", "must be a path"),
    (Upstream(health_check=HealthCheck(path="/a#b")), "health_check.path", "must be a path"),
    (Upstream(health_check=HealthCheck(path="/a\r\nHost: x")), "health_check.path", "must be a path"),
    (
        Upstream(health_check=HealthCheck(path="/", interval_ms=99, timeout_ms=9)),
        "health_check.interval",
        "must be in [100, 3600000] ms, got 99",
    ),
    (
        Upstream(health_check=HealthCheck(path="/", timeout_ms=0)),
        "health_check.timeout",
        "must be in [1, 60000] ms, got 0",
    ),
    (
        Upstream(health_check=HealthCheck(path="/", timeout_ms=5_001)),
        "health_check.timeout",
        "must be at most the interval 5000 ms, got 5001",
    ),
    (
        Upstream(health_check=HealthCheck(path="/", failures=0)),
        "health_check.failures",
        "must be in [1, 100], got 0",
    ),
    (
        Upstream(health_check=HealthCheck(path="/", successes=101)),
        "health_check.successes",
        "must be in [1, 100], got 101",
    ),
]
TLS: list[tuple[Tls, str, str, str]] = [
    (Tls(ca="/ca.pem"), "http://x/", "tls", "must be left out unless the url has scheme https, got 'http'"),
    (Tls(ca=""), HTTPS, "tls.ca", "must be the path of a file, got ''"),
    (Tls(certificate="/a\0b"), HTTPS, "tls.certificate", "must be the path of a file, got '/a\\x00b'"),
    (Tls(key="/key.pem"), HTTPS, "tls.key", "must come with a certificate, got '/key.pem' alone"),
    (Tls(server_name="a:443"), HTTPS, "tls.server_name", "must be a host name or address without a port"),
]


def test_every_default_is_sound() -> None:
    """And so is each part of it at its least."""
    smallest = Ejection(
        consecutive_failures=1,
        failure_percent=1,
        minimum_requests=1,
        interval_ms=100,
        base_ms=1,
        longest_ms=1,
    )
    assert list(upstream_problems(Upstream())) == []
    assert list(upstream_problems(Upstream(health_check=CHECK, hedge_ms=1_999))) == []
    assert list(upstream_problems(Upstream(max_waiting=0, retry_percent=0, ejection=smallest))) == []


@pytest.mark.parametrize(
    ("upstream", "field", "message"), UPSTREAMS, ids=[f"{c[1]}: {c[2][:24]}" for c in UPSTREAMS]
)
def test_one_fault_of_an_upstream_is_one_problem(upstream: Upstream, field: str, message: str) -> None:
    """Nothing else is complained about."""
    (found,) = upstream_problems(upstream)
    assert found.field == f"upstream.{field}"
    assert found.message.startswith(message)


@pytest.mark.parametrize(("tls", "url", "field", "message"), TLS)
def test_one_fault_of_tls_is_one_problem(tls: Tls, url: str, field: str, message: str) -> None:
    """Its files lie on the gateway's machine, so none is looked at here."""
    (found,) = tls_problems("tls", tls, url)
    assert found.field == field
    assert found.message.startswith(message)


@pytest.mark.parametrize(
    "tls",
    [
        Tls(),
        Tls(ca="ca.pem"),
        Tls(certificate="/both.pem"),
        Tls(certificate="/c.pem", key="/k.pem", server_name="models.internal"),
    ],
)
def test_tls_that_can_be_is_let_through(tls: Tls) -> None:
    """Own authorities, a client certificate with its key beside or inside, another name."""
    assert list(tls_problems("tls", tls, HTTPS)) == []


def test_a_sample_belongs_to_a_shadow() -> None:
    """Down to one basis point; any other arm has none."""
    shadow = ArmSpec("dark", "http://127.0.0.1:9003/", Role.SHADOW, sample_bp=1)
    assert arm_problems(shadow, "arm") == []
    for arm, message in (
        (ArmSpec("x", shadow.url, Role.SHADOW, sample_bp=0), "must be in [0.0001, 1], got 0.0"),
        (ArmSpec("x", shadow.url, Role.SHADOW, sample_bp=10_001), "must be in [0.0001, 1], got 1.0001"),
        (
            ArmSpec("x", shadow.url, sample_bp=1_000),
            "must be left out for an arm that is no shadow, got 0.1 for a challenger",
        ),
    ):
        (found,) = arm_problems(arm, "arm")
        assert (found.field, found.message) == ("arm.sample", message)


def _route(weights: dict[str, int], *predictions: Prediction) -> RouteSpec:
    return RouteSpec(
        name="ads",
        arms=(
            ArmSpec("old", "http://127.0.0.1:9001/", Role.CHAMPION),
            ArmSpec("dark", "http://127.0.0.1:9002/", Role.SHADOW),
        ),
        weights=weights,
        match=Match(path_prefix="/r/ads"),
        predictions=predictions,
    )


@pytest.mark.parametrize("share", [0, 1_000])
def test_a_shadow_stands_in_no_split(share: int) -> None:
    """Not even with nothing: rollouts must not know it."""
    assert problems(_route({"old": 10_000})) == []
    (found,) = problems(_route({"old": 10_000 - share, "dark": share}))
    assert found.field == "split.weights.dark"
    assert found.message == f"must be 0 or absent for a shadow arm, which answers nobody, got {share}"


def test_predictions_are_checked() -> None:
    """Their names, their pointers, and how many there are."""
    good = Prediction(name="score", pointer="/a~1b/0", numeric=True)
    assert problems(_route({"old": 10_000}, good)) == []
    bad = Prediction(name="Score", pointer="score", numeric=False)
    assert [(found.field, found.message) for found in problems(_route({"old": 10_000}, good, bad, good))] == [
        ("predictions.1.name", "must match [a-z0-9][a-z0-9._-]{0,62}, got 'Score'"),
        ("predictions.1.from.response", "must be a JSON pointer such as /score, got 'score'"),
        ("predictions", "must have different names, got 'score' 2 times"),
    ]
    many = [Prediction(name=f"p{number}", pointer="/p", numeric=True) for number in range(33)]
    (found,) = problems(_route({"old": 10_000}, *many))
    assert (found.field, found.message) == ("predictions", "must be at most 32, got 33")
