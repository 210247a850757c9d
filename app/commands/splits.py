"""How is it told in a few words what divides a route's traffic, now and after each change?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from app.tables import shares

Document = Mapping[str, Any]

BANDIT = "bandit"
"""What stands where shares would, while a bandit divides: those that are stored are for when it cannot."""

MODES = {
    "weights": "by weights",
    "thompson": "by Thompson sampling (kingmaker get bandit)",
    "apprentice": "the champion alone, while a bandit learns (kingmaker get bandit)",
}


def split_line(split: Document) -> str:
    """A declared split: the shares of weights, or the terms of a bandit."""
    if split["mode"] == "weights":
        return shares(split["weights"])
    terms = ["apprentice" if split["apprentice"] else split["mode"], f"floor {split['floor']}"]
    terms += [f"cap {arm} {share}" for arm, share in split["cap"].items()]
    return ", ".join(terms)


def share_of(split: Document, arm: Document) -> object:
    """An arm's share of a declared split; a bandit gives each arm that answers callers another every time."""
    if split["mode"] == "weights":
        return split["weights"].get(arm["name"], 0)
    if arm["role"] == "shadow":
        return 0
    if split["apprentice"]:
        return 10_000 if arm["role"] == "champion" else 0
    return BANDIT


def by_bandit(entries: Sequence[Document], now: str | None) -> set[int]:
    """The ids of those entries of a timeline, newest first, after which a bandit divided the traffic.

    `now` is the mode after the newest; None where there are newer ones. Where none of the entries says what
    divided, shares stand as they are.
    """
    mode = now
    for entry in entries:
        if (change := _mode_change(entry)) is not None:
            mode = change[0]
    found = set()
    for entry in reversed(entries):
        if (change := _mode_change(entry)) is not None:
            mode = change[1]
        if mode == "thompson":
            found.add(entry["id"])
    return found


def _mode_change(entry: Document) -> tuple[str | None, str] | None:
    """What divided before an entry, as far as that is known, and after it; None where that stayed."""
    evidence = entry["evidence"]
    if entry["kind"] == "split_changed" and evidence is not None:
        mode = _mode(evidence)
        return ("thompson" if mode == "weights" else None), mode
    if entry["kind"] != "route_changed" or evidence is None:
        return None
    before, after = ({each["field"]: each[side] for each in evidence} for side in ("before", "after"))
    named = {"split.mode", "split.apprentice"} & after.keys()
    return (_declared(before), _declared(after)) if named else None


def _declared(fields: Document) -> str:
    mode = fields.get("split.mode", "thompson")
    return _mode({"mode": mode, "apprentice": fields.get("split.apprentice")})


def _mode(split: Document) -> str:
    return "apprentice" if split.get("apprentice") else str(split["mode"])
