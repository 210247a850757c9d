"""`kingmaker compare`: known values, exactly the agreed JSON, and refusals that name what is wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.app.cli.programs import invoke, run

_BINARY = ("--kind", "binary", "--champion", "n=100,sum=49", "--challenger", "n=100,sum=51")
_INTERVAL = {"mean", "low", "high"}


def compare(*arguments: str) -> dict[str, Any]:
    """The document of a comparison that must succeed."""
    ran = invoke("compare", *arguments, "--json")
    assert (ran.exit_code, ran.stderr) == (0, "")
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def test_the_program_gives_known_values_without_a_server() -> None:
    """49 of 100 against 51 of 100 under a flat prior: chance 0.6107705, losses 0.0387243 and 0.0191165."""
    ran = run("compare", *_BINARY, "--json")
    assert (ran.returncode, ran.stderr) == (0, "")
    found = json.loads(ran.stdout)
    assert found["chance_to_beat"] == pytest.approx(0.6107705, abs=5e-8)
    assert found["expected_loss"]["challenger"] == pytest.approx(0.0191165, abs=5e-8)
    assert found["expected_loss"]["champion"] == pytest.approx(0.0387243, abs=5e-8)


def test_counts_under_a_prior_of_ones_own() -> None:
    """10 in 100 against 20 in 120 with prior a=1,b=1: the challenger has the higher rate with 0.904225."""
    found = compare(
        "--kind", "count", "--champion", "exposure=100,sum=10", "--challenger", "exposure=120,sum=20",
        "--prior", "a=1,b=1",
    )  # fmt: skip
    assert found["chance_to_beat"] == pytest.approx(0.904225, abs=5e-7)


def test_the_document_holds_the_agreed_names_and_nothing_else() -> None:
    """Scripts rely on these names, all the way down."""
    found = compare(*_BINARY)
    assert set(found) == {"chance_to_beat", "expected_loss", "lift", "champion", "challenger"}
    assert set(found["expected_loss"]) == {"champion", "challenger"}
    assert all(set(found[name]) == _INTERVAL for name in ("lift", "champion", "challenger"))


@pytest.mark.parametrize(
    ("kind", "champion", "challenger"),
    [
        ("continuous", "n=50,sum=100,sum_squares=300", "n=40,sum=90,sum_squares=290"),
        (
            "ratio",
            "n=50,num=100,den=50,num_squares=300,den_squares=90,cross=110",
            "n=50,num=110,den=50,num_squares=330,den_squares=90,cross=115",
        ),
    ],
)
def test_every_kind_has_totals_of_its_own(kind: str, champion: str, challenger: str) -> None:
    """Continuous and ratio metrics are compared by the totals that the contract names."""
    found = compare("--kind", kind, "--champion", champion, "--challenger", challenger)
    assert 0.5 < found["chance_to_beat"] < 1


def test_lower_may_be_better() -> None:
    """Where lower is better, the chance is that of being lower."""
    higher, lower = compare(*_BINARY), compare(*_BINARY, "--better", "lower")
    assert lower["chance_to_beat"] == pytest.approx(1 - higher["chance_to_beat"])
    assert lower["expected_loss"]["champion"] == higher["expected_loss"]["challenger"]


def test_a_prior_matters() -> None:
    """Jeffreys' prior gives another answer than the flat one, which is the default."""
    assert compare(*_BINARY, "--prior", "flat") == compare(*_BINARY)
    assert compare(*_BINARY, "--prior", "jeffreys") != compare(*_BINARY)


def test_people_read_intervals_as_mean_low_high() -> None:
    """Without --json there is a table with means, 95 % intervals, losses, chance and lift."""
    lines = invoke("compare", *_BINARY).stdout.splitlines()
    assert lines[1].split() == ["champion", "0.4902", "[0.3940,", "0.5867]", "0.03872"]
    assert any(line.startswith("chance") and line.endswith("61.1 %") for line in lines)
    assert any(line.startswith("lift") and "+4.0 % [" in line for line in lines)


def test_a_lift_over_nothing_is_null() -> None:
    """Where the champion's mean is 0 there is no relative difference: null in JSON, a dash for people."""
    totals = (
        "--kind", "continuous",
        "--champion", "n=4,sum=0,sum_squares=4", "--challenger", "n=4,sum=2,sum_squares=4",
    )  # fmt: skip
    assert compare(*totals)["lift"] is None
    assert invoke("compare", *totals).stdout.rstrip().endswith("-")


@pytest.mark.parametrize(
    ("champion", "message"),
    [
        ("n=100,sum=149", "champion.sum must be in [0, 100], got 149"),
        ("n=100", "champion must name exactly n, sum for kind binary, got n"),
        ("n=100,sum=nan", "champion.sum must be a finite number, got nan"),
    ],
)
def test_totals_that_no_data_can_have_are_refused(champion: str, message: str) -> None:
    """Exit code 1, with field, bound and value on stderr and nothing on stdout."""
    ran = invoke("compare", "--kind", "binary", "--champion", champion, "--challenger", "n=1,sum=1", "--json")
    assert (ran.exit_code, ran.stdout) == (1, "")
    assert message in ran.stderr


@pytest.mark.parametrize(
    ("option", "value"),
    [("--champion", "n:100"), ("--prior", "gut"), ("--kind", "trinary"), ("--better", "sideways")],
)
def test_a_flag_that_cannot_be_read_is_a_usage_error(option: str, value: str) -> None:
    """Exit code 2, naming the flag."""
    ran = invoke("compare", *_BINARY, option, value)
    assert (ran.exit_code, ran.stdout) == (2, "")
    assert option in ran.stderr
    assert value in ran.stderr
