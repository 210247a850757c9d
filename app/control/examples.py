"""One example of every body that the API takes or gives, for its description; a test checks each of them.

None holds a null: FastAPI leaves those out of the description.
"""

from __future__ import annotations

from typing import Any

Example = dict[str, Any]

_AT = "2026-01-31T12:00:00Z"
_DAY = "2026-01-31"
_WEIGHTS = {"logreg-v6": 9_000, "gbm-v7": 1_000}
_WHY = "approved by the bidding team"

ARM: Example = {
    "name": "gbm-v7",
    "url": "http://127.0.0.1:9002/score",
    "role": "challenger",
    "labels": {"mlflow": "models:/bidder/7"},
    "headers": {"Authorization": {"env": "MODEL_AUTHORIZATION"}},
}
_SHADOW: Example = {
    "name": "gbm-v8",
    "url": "https://127.0.0.1:9003/score",
    "role": "shadow",
    "sample": 0.1,
    "tls": {"ca": "/etc/kingmaker/models-ca.pem"},
}
ROUTE: Example = {
    "route": "ad-bidder",
    "unit": {"header": "X-User-Id"},
    "arms": [
        {"name": "logreg-v6", "url": "http://127.0.0.1:9001/score", "role": "champion"},
        {"name": "gbm-v7", "url": "http://127.0.0.1:9002/score"},
        _SHADOW,
    ],
    "split": {"mode": "weights", "weights": _WEIGHTS},
    "metrics": [{"name": "conversion", "kind": "binary", "window": "24h"}],
    "predictions": [{"name": "score", "from": {"response": "/score"}, "type": "numeric"}],
    "policy": {"goal": "conversion", "ramp": [2_500, 5_000, 10_000]},
    "upstream": {
        "timeout": "2s",
        "retry_percent": 10,
        "hedge_after": "100ms",
        "ejection": {"consecutive_failures": 5, "base_time": "10s"},
        "health_check": {"path": "/healthz", "interval": "5s", "timeout": "1s"},
    },
}
ARM_CHANGE: Example = {"url": "http://127.0.0.1:9003/score"}
SPLIT: Example = {"weights": {"logreg-v6": 8_000, "gbm-v7": 2_000}, "reason": "more evidence wanted"}
BECAUSE: Example = {"reason": "the quarter ends"}
ARM_ACTION: Example = {"arm": "gbm-v7", "reason": _WHY}
START: Example = {"arm": "gbm-v7", "share": 1_000, "reason": _WHY}
KILL_SWITCH: Example = {"reason": "complaints about gbm-v7"}
NEW_KEY: Example = {"name": "ci", "role": "operator"}

ROUTES: Example = {"routes": [ROUTE]}
APPLIED: Example = {
    "route": "ad-bidder",
    "created": False,
    "dry_run": False,
    "changes": [{"field": "policy.winning_days", "before": 3, "after": 5}],
    "kept": [{"field": "champion", "current": "logreg-v6", "declared": "gbm-v7"}],
    "document": ROUTE,
}
ROLLOUT: Example = {
    "route": "ad-bidder",
    "champion": "logreg-v6",
    "previous_champion": "logreg-v5",
    "phase": "trial",
    "weights": _WEIGHTS,
    "suspended": False,
    "kill_switch": False,
    "epoch": 1,
    "version": 1,
    "goal": "conversion",
    "trials": [
        {
            "arm": "gbm-v7",
            "phase": "trial",
            "share": 1_000,
            "started_at": _AT,
            "changed_at": _AT,
            "streak": {"winning": 2, "losing": 0, "frozen": 0},
            "judged_days": 2,
            "judged_through": _AT,
        }
    ],
}
EVALUATIONS: Example = {
    "evaluations": [
        {
            "id": 7,
            "at": _AT,
            "kind": "day",
            "day": _DAY,
            "champion": "logreg-v6",
            "challenger": "gbm-v7",
            "verdict": "win",
            "reason": "chance_to_beat 0.9931 ≥ 0.975",
            "action": "step",
            "streak": {"winning": 3, "losing": 0, "frozen": 0},
            "weights": _WEIGHTS,
            "days": 7,
            "threshold": 0.975,
            "chance_to_beat": 0.9931,
            "expected_loss": 0.00001,
            "allowed_loss": 0.0001,
            "lift": {"mean": 0.061, "low": 0.012, "high": 0.112},
            "arms": {
                "logreg-v6": {"n": 630_000, "mean": 0.0201, "low": 0.0198, "high": 0.0204},
                "gbm-v7": {"n": 70_000, "mean": 0.0213, "low": 0.0203, "high": 0.0224},
            },
            "guardrails": [
                {
                    "metric": "error",
                    "e_value": 0.2,
                    "limit": 100.0,
                    "breached": False,
                    "enough": True,
                    "champion_rate": 0.001,
                    "challenger_rate": 0.001,
                }
            ],
        }
    ],
    "next": 7,
}
_ENTRY: Example = {
    "id": 12,
    "at": _AT,
    "kind": "promoted",
    "actor": "ci",
    "reason": _WHY,
    "champion": "gbm-v7",
    "challenger": "gbm-v7",
    "weights": {"logreg-v6": 0, "gbm-v7": 10_000},
    "epoch": 4,
    "version": 9,
    "evaluation": 7,
}
TIMELINE: Example = {"timeline": [_ENTRY], "next": 12}
CHAMPION: Example = {
    "route": "ad-bidder",
    "at": "2026-02-14T09:30:00Z",
    "champion": "gbm-v7",
    "since": _AT,
    "until": "2026-03-01T08:00:00Z",
    "crowned": _ENTRY,
}
METRICS: Example = {
    "days": [
        {
            "day": _DAY,
            "arm": "gbm-v7",
            "decisions": 10_000,
            "deciding": 9_990,
            "metrics": {"conversion": {"n": 9_990, "sum": 213.0, "mean": 0.0213}},
            "late": {},
        }
    ]
}
KEY: Example = {"id": 1, "name": "ci", "role": "operator", "created_at": _AT}
KEYS: Example = {"keys": [KEY]}
CREATED_KEY: Example = {**KEY, "key": "km_shown-this-once"}
READY: Example = {"status": "ok", "snapshot": 42}
PROBLEM: Example = {
    "type": "about:blank",
    "title": "Unprocessable Entity",
    "status": 422,
    "detail": "route 'ad-bidder': split.weights cannot be: weights must sum to 10000, got 9000",
    "errors": [{"field": "split.weights", "message": "cannot be: weights must sum to 10000, got 9000"}],
}
