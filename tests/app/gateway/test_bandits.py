"""How a worker's bandits do is in its figures, and goes from there when they go."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from app.gateway.bandits import BanditFigures
from app.gateway.counters import Counters, render
from routing.assignment import Plan
from routing.bandit import BanditTerms, Learned
from routing.types import Arm, Match, Role, Route, Share
from tests.app.gateway.stage import Stage

ARM = Arm(id=1, name="old", url="http://127.0.0.1:1/", role=Role.CHAMPION)


def route_of(name: str, bandit: BanditTerms | None) -> Route:
    """A route with a champion alone."""
    shares = (Share(arm_id=1, start_bp=0, end_bp=10_000),)
    where = Match(path_prefix=f"/{name}")
    return Route(id=1, name=name, match=where, arms=(ARM,), shares=shares, salt="s", epoch=1, bandit=bandit)


def learned(at_ms: int, schema: int = 0) -> BanditTerms:
    """A bandit that has learnt with these features."""
    return BanditTerms(learned=Learned(at_ms=at_ms, schema=schema))


def shown(counters: Counters) -> dict[tuple[str, str], float]:
    """The figures of bandits by name and route."""
    families = text_string_to_metric_families(render([counters.dump()]))
    return {
        (family.name.removeprefix("kingmaker_bandit_"), sample.labels["route"]): sample.value
        for family in families
        for sample in family.samples
        if family.name.startswith("kingmaker_bandit_")
    }


def test_a_bandit_that_has_learnt_has_an_age_and_one_that_has_not_a_fault() -> None:
    """As soon as a snapshot is there; a clock that is behind makes no negative age."""
    counters = Counters("w0")
    figures = BanditFigures(counters)
    routes = {"a": learned(1_000), "b": BanditTerms(), "c": None, "d": learned(9_000)}
    figures.adopt([route_of(name, bandit) for name, bandit in routes.items()])
    figures.show(3_500)
    assert shown(counters) == {
        ("fault", "a"): 0,
        ("learned_age_seconds", "a"): 2.5,
        ("fault", "b"): 1,
        ("fault", "d"): 0,
        ("learned_age_seconds", "d"): 0,
    }


def test_a_bandit_that_cannot_choose_has_a_fault() -> None:
    """That shows when its route is asked: what was learnt is of other features."""
    counters = Counters("w0")
    figures = BanditFigures(counters)
    route = route_of("a", learned(1_000, schema=7))
    figures.adopt([route])
    assert shown(counters) == {("fault", "a"): 0}
    figures.note(route, Plan(route))
    assert shown(counters) == {("fault", "a"): 1}


def test_what_is_gone_is_shown_no_more() -> None:
    """Of a bandit that has learnt nothing any more there is no age, of one that is gone nothing at all."""
    counters = Counters("w0")
    figures = BanditFigures(counters)
    figures.adopt([route_of("a", learned(1)), route_of("b", learned(1))])
    figures.show(1)
    figures.adopt([route_of("a", BanditTerms()), route_of("b", None)])
    figures.show(1)
    assert shown(counters) == {("fault", "a"): 1}


async def test_a_worker_shows_its_bandits(stage: Stage) -> None:
    """With the champion's answers counted as failures of assignment, as long as nothing was learnt."""
    stage.route(bandit=BanditTerms())
    assert (await stage.ask())["kingmaker-reason"] == "DEFAULT"
    figures = (await stage.ask(path="/metrics")).body.decode()
    assert 'kingmaker_bandit_fault{route="bid",worker="w0"} 1' in figures
    assert 'kingmaker_assignment_failures_total{route="bid",worker="w0"} 1' in figures
    stage.route(bandit=BanditTerms(learned=Learned(at_ms=0, schema=0)))
    assert (await stage.ask())["kingmaker-reason"] == "BANDIT"
    figures = (await stage.ask(path="/metrics")).body.decode()
    assert 'kingmaker_bandit_fault{route="bid",worker="w0"} 0' in figures
    assert 'kingmaker_bandit_learned_age_seconds{route="bid",worker="w0"} ' in figures
