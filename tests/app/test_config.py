"""A file declares one route or several; what is wrong with it is said with its name and place."""

from __future__ import annotations

import pytest

from app.config import ConfigError, Document, load_configuration

NOT_YAML = [
    ("route: [ads", "line 1, column 12"),
    ("route: ads\n\tarms: []", "line 2, column 1"),
    ("route: ads\narms: {a: 1, a: 2}", "line 2, column 14: 'a' stands twice"),
    ("route: ads\nroute: other", "line 2, column 1: 'route' stands twice"),
    ("routes:\n- {route: a, split: {weights: {x: 1, x: 2}}}", "line 2, column 38: 'x' stands twice"),
    ("--- {}\n--- {}", "line 2, column 1"),
    ("a: &b 1\nc: *d", "line 2, column 4"),
    ("? [a]\n: 1", "unhashable key"),
    ("route: !!python/object/apply:os.system ['true']", "could not determine a constructor"),
    ("route: !include secrets.yaml", "could not determine a constructor"),
    ("route: \x01", "special characters are not allowed"),
    ("since: 2026-13-45", "a value does not fit its type: month must be in 1..12"),
    ("a: !!int x", "a value does not fit its type"),
    ("a: !!bool x", "a value does not fit its type"),
    ("a: !!timestamp x", "a value does not fit its type"),
    ("a: 1" + ":1" * 250 + ".0", "a value does not fit its type"),
    ("a: " + "9" * 5_000, "a value does not fit its type"),
]
NO_ROUTES = [
    ("", "must hold one route or a list under `routes`, got nothing"),
    ("# a comment", "got nothing"),
    ("ads", "got str"),
    ("[]", "got list"),
    ("- route: ads", "got list"),
    ("routes: ads", "routes must be a list, got str"),
    ("routes:", "routes must be a list, got NoneType"),
    ("routes: [ads]", "routes.0 must be a route, got str"),
    ("routes: [{route: a}, [b]]", "routes.1 must be a route, got list"),
    ("routes: []\nroute: ads", "must hold only `gateway` and `server` beside `routes`, got route"),
    ("routes: []\ngateway: [1]", "gateway must hold settings by name, got list"),
    ("server: 5", "server must hold settings by name, got int"),
    ("routes: [{route: a}, {route: b}, {route: a}]", "different names, got 'a' twice"),
]


def load_documents(text: str, source: str) -> list[Document]:
    """The routes of a file."""
    return list(load_configuration(text, source).routes)


def test_a_file_holds_one_route_or_several() -> None:
    """Documents come back in order, unchecked; JSON is YAML too."""
    assert load_documents("route: ads\narms: []", "x") == [{"route": "ads", "arms": []}]
    assert load_documents("routes:\n- route: b\n- route: a\n", "x") == [{"route": "b"}, {"route": "a"}]
    assert load_documents('{"routes": [{"route": "ads"}]}', "x") == [{"route": "ads"}]
    assert load_documents("routes: []", "x") == []


@pytest.mark.parametrize(("text", "message"), NOT_YAML)
def test_what_is_not_yaml_is_refused_with_its_place(text: str, message: str) -> None:
    """The message is one line that names the file."""
    with pytest.raises(ConfigError) as refused:
        load_documents(text, "routes.yaml")
    assert str(refused.value).startswith("routes.yaml is not YAML: ")
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("text", "message"), NO_ROUTES)
def test_what_declares_no_routes_is_refused(text: str, message: str) -> None:
    """The message names the file, what it must hold and what it holds."""
    with pytest.raises(ConfigError) as refused:
        load_documents(text, "routes.yaml")
    assert str(refused.value).startswith("routes.yaml")
    assert message in str(refused.value)


def test_a_file_nested_without_end_is_refused() -> None:
    """It does not bring the process down."""
    with pytest.raises(ConfigError, match="x is nested too deeply"):
        load_documents("[" * 50_000, "x")


def test_routes_may_share_parts() -> None:
    """Anchors and merge keys work, and what is merged may be overridden, even in what is itself merged."""
    text = """
    routes:
    - route: a
      policy: &policy {<<: &base {winning_days: 3, minimum_days: 7}, winning_days: 5}
    - route: b
      policy: {<<: *policy, minimum_days: 9}
    """
    first, second = load_documents(text, "x")
    assert first["policy"] == {"winning_days": 5, "minimum_days": 7}
    assert second["policy"] == {"winning_days": 5, "minimum_days": 9}
    nested = "routes: [{route: a, x: {y: &y {<<: &z {k: 2}, k: 1}}}, {route: b, x: {<<: *y}}]"
    assert [route["x"] for route in load_documents(nested, "x")] == [{"y": {"k": 1}}, {"k": 1}]
