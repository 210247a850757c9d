"""The routes of these tests, one for each that counts. Their arms are only named: nobody has to be there."""

from __future__ import annotations

from typing import Any

COUNTRY = {"name": "country", "from": {"header": "X-Country"}, "type": "categorical", "values": ["DE", "FR"]}


def _route(name: str, share: int = 5_000, **changes: Any) -> dict[str, Any]:
    return {
        "route": name,
        "arms": [
            {"name": "logreg-v6", "url": "http://127.0.0.1:9/score", "role": "champion"},
            {"name": "gbm-v7", "url": "http://127.0.0.1:9/score", "role": "challenger"},
        ],
        "split": {"weights": {"logreg-v6": 10_000 - share, "gbm-v7": share}},
        "metrics": [{"name": "conversion", "kind": "binary", "window": "1h"}],
        **changes,
    }


ROUTES = [
    _route("bid"),
    _route("polled"),
    _route("confirmed"),
    _route("sure", share=0),
    _route("forced", share=0, allow_force=True),
    _route("of-python"),
    _route("of-server"),
    _route("of-page", context=[COUNTRY]),
    _route("of-kept"),
]
