"""Routes as they can be declared, drawn by hypothesis."""

from __future__ import annotations

from dataclasses import replace

import msgspec
from hypothesis import strategies as st

from policies.bandits import BanditSpec
from policies.metrics import Metric
from policies.rewards import Reward
from policies.spec import Advance, Approval, ArmSpec, Guardrail, Policy, RouteSpec
from policies.types import Aggregate, Better, Kind, Missing
from routing.features import Feature, FeatureType, Outside, Source, SourceKind
from routing.types import TOTAL_BP, ArmHeader, Ejection, HealthCheck, Match, Prediction, Role, Upstream

_names = st.builds(str.__add__, st.sampled_from("abc123"), st.text("abc123._-", max_size=9))
_texts = st.text(st.characters(codec="utf-8"), max_size=12)
_days = st.integers(1, 10**6)
_confidence = st.floats(0.5, 1, exclude_max=True)
_header_values = st.text("\tbearer 42\xe4", max_size=9)
_headers = st.builds(
    lambda name, value, env: ArmHeader(name=f"X-{name}", value=value, env=None if value is not None else env),
    _names,
    st.none() | _header_values,
    st.sampled_from(["TOKEN", "_KEY_2"]),
)
_units = st.none() | st.one_of(
    st.builds(Source, kind=st.sampled_from([SourceKind.HEADER, SourceKind.COOKIE]), name=_names),
    st.builds(Source, kind=st.just(SourceKind.QUERY), name=_names),
    st.builds(Source, kind=st.just(SourceKind.JSON), name=_names.map(lambda name: f"/{name}/id")),
)
_sources = st.builds(Source, kind=st.sampled_from(SourceKind), name=_names).map(
    lambda source: (
        msgspec.structs.replace(source, name=f"/{source.name}") if source.kind is SourceKind.JSON else source
    )
)
_features = st.one_of(
    st.builds(
        Feature,
        name=_names,
        source=_sources,
        type=st.just(FeatureType.CATEGORICAL),
        values=st.lists(_names, min_size=1, max_size=3, unique=True).map(tuple),
    ),
    st.builds(
        Feature,
        name=_names,
        source=_sources,
        type=st.just(FeatureType.NUMERIC),
        minimum=st.floats(-10, 0),
        maximum=st.floats(1, 10),
        outside=st.sampled_from(Outside),
        default=st.none() | st.floats(0, 1),
    ),
    st.builds(
        Feature,
        name=_names,
        source=_sources,
        type=st.just(FeatureType.BOOLEAN),
        default=st.none() | st.booleans(),
    ),
    st.builds(
        Feature,
        name=_names,
        source=_sources,
        type=st.sampled_from([FeatureType.TEXT, FeatureType.ID]),
        buckets=st.integers(2, 20),
    ),
)
_contexts = st.lists(_features, max_size=3, unique_by=lambda feature: feature.name).map(tuple)
_prefixes = _names.map(lambda name: f"/r/x{name.rstrip('.')}")
_matches = st.one_of(
    st.builds(Match, path_prefix=_prefixes | st.just("/"), host=st.none() | st.just("ads.example.com")),
    st.builds(Match, host=st.just("[::1]")),
)
_metrics = st.builds(
    Metric,
    name=_names.map(lambda name: f"m-{name}"),
    kind=st.sampled_from([Kind.BINARY, Kind.CONTINUOUS]),
    better=st.sampled_from(Better),
    window_ms=st.integers(1, 90 * 86_400_000),
    aggregate=st.sampled_from([Aggregate.FIRST, Aggregate.LAST, Aggregate.MAX]),
    missing=st.sampled_from(Missing),
)
_policies = st.builds(
    Policy,
    confidence=_confidence,
    winning_days=st.integers(1, 50),
    minimum_days=st.integers(1, 50),
    horizon_days=st.integers(50, 10**6),
    losing_days=_days,
    losing_confidence=_confidence,
    max_expected_loss=st.floats(0, 10),
    minimum_effect=st.floats(0, 10),
    min_samples=_days,
    min_conversions=st.integers(0, 10**6),
    guardrails=st.lists(
        st.builds(
            Guardrail, max_relative_increase=st.floats(0, 100), confidence=_confidence, min_events=_days
        ),
        max_size=2,
    ).map(tuple),
    ramp_bp=st.sets(st.integers(1, TOTAL_BP - 1), max_size=4).map(lambda set_: (*sorted(set_), TOTAL_BP)),
    advance=st.sampled_from(Advance),
    bake_ms=st.integers(0, 365 * 86_400_000),
    approval=st.sampled_from(Approval),
    day_length_ms=st.integers(1_000, 86_400_000),
    timezone=st.sampled_from(["UTC", "Europe/Berlin", "America/New_York"]),
)
_predictions = st.builds(
    Prediction, name=_names, pointer=_names.map(lambda name: f"/{name}/0"), numeric=st.booleans()
)
_ejections = st.builds(
    Ejection,
    consecutive_failures=st.integers(1, 1_000),
    failure_percent=st.integers(1, 100),
    minimum_requests=st.integers(1, 10**6),
    interval_ms=st.integers(100, 3_600_000),
    base_ms=st.integers(1, 1_000_000),
    longest_ms=st.integers(1_000_000, 86_400_000),
)
_health_checks = st.builds(
    HealthCheck,
    path=_names.map(lambda name: f"/{name}?deep=1"),
    interval_ms=st.integers(60_000, 3_600_000),
    timeout_ms=st.integers(1, 60_000),
    failures=st.integers(1, 100),
    successes=st.integers(1, 100),
)
_upstreams = st.builds(
    Upstream,
    timeout_ms=st.integers(1_000, 3_600_000),
    connect_timeout_ms=st.integers(1, 60_000),
    max_connections=st.integers(1, 65_536),
    max_waiting=st.integers(0, 10**6),
    fallback=st.booleans(),
    retry_percent=st.integers(0, 10),
    hedge_ms=st.none() | st.integers(1, 999),
    ejection=_ejections,
    health_check=st.none() | _health_checks,
)


@st.composite
def specs(draw: st.DrawFn) -> RouteSpec:
    """Every route that can be declared."""
    names = draw(st.lists(_names, min_size=1, max_size=4, unique=True))
    shadows = draw(st.lists(_names, max_size=2, unique=True).map(lambda names: [f"s-{n}" for n in names]))
    champion = draw(st.sampled_from(names))
    cuts = sorted(draw(st.lists(st.integers(0, TOTAL_BP), min_size=len(names) - 1, max_size=len(names) - 1)))
    shares = [high - low for low, high in zip([0, *cuts], [*cuts, TOTAL_BP], strict=True)]
    metrics = draw(st.lists(_metrics, max_size=3, unique_by=lambda metric: metric.name))
    policy = draw(_policies)
    goal = draw(st.none() | st.sampled_from([metric.name for metric in metrics])) if metrics else None
    bandit = draw(st.none() | _bandits(names, metrics)) if metrics else None
    if bandit is not None:
        shares = [TOTAL_BP if name == champion else 0 for name in names]
    context = draw(_contexts)
    few = (FeatureType.CATEGORICAL, FeatureType.BOOLEAN)
    named = [feature.name for feature in context if feature.type in few]
    return RouteSpec(
        name=draw(_names),
        arms=tuple(
            ArmSpec(
                name,
                f"http://127.0.0.1:9000/{draw(_names)}",
                Role.CHAMPION if name == champion else Role.CHALLENGER,
                draw(st.dictionaries(_texts, _texts, max_size=2)),
                tuple(draw(st.lists(_headers, max_size=2, unique_by=lambda header: header.name))),
            )
            for name in names
        )
        + tuple(
            ArmSpec(name, "http://127.0.0.1:9001/", Role.SHADOW, sample_bp=draw(st.integers(1, TOTAL_BP)))
            for name in shadows
        ),
        weights=dict(zip(names, shares, strict=True)),
        match=draw(_matches),
        unit=draw(_units),
        context=context,
        segments=tuple(draw(st.lists(st.sampled_from(named), unique=True))) if named else (),
        metrics=tuple(metrics),
        predictions=tuple(draw(st.lists(_predictions, max_size=2, unique_by=lambda each: each.name))),
        policy=replace(policy, goal=goal),
        upstream=draw(_upstreams),
        allow_force=draw(st.booleans()),
        bandit=bandit,
    )


def _bandits(names: list[str], metrics: list[Metric]) -> st.SearchStrategy[BanditSpec]:
    """Every bandit over these arms and metrics."""
    known = [metric.name for metric in metrics]
    rewards = st.builds(
        Reward,
        expression=st.sampled_from([*known, f"{known[0]} - 0.5 * ({known[-1]} / 2)"]),
        default=st.floats(-1, 1),
    )
    return st.builds(
        BanditSpec,
        reward=rewards,
        floor_bp=st.integers(0, TOTAL_BP // len(names)),
        caps=st.just({}) | st.just({names[0]: TOTAL_BP}),
        discount=st.floats(0.1, 1),
        warm_up=st.integers(1, 10**6),
        apprentice=st.booleans(),
    )
