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
    "context": [
        {
            "name": "country",
            "from": {"json": "/context/country"},
            "type": "categorical",
            "values": ["DE", "FR", "US"],
        },
        {"name": "hour", "from": {"header": "X-Hour"}, "type": "numeric", "min": 0, "max": 23},
    ],
    "segments": ["country"],
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
OVERRIDE: Example = {
    "arm": "gbm-v7",
    "when": [
        {"attribute": "unit", "op": "in", "values": ["u1", "u2"]},
        {"attribute": "context.country", "op": "equals", "values": ["DE"]},
    ],
    "share": 10_000,
    "priority": 100,
    "expires_at": "2999-12-31T12:00:00Z",
    "reason": "asked for by the customer",
}
DRY_RUN: Example = {
    "unit": "u1",
    "method": "POST",
    "path": "/r/ad-bidder/score?debug=1",
    "headers": {"X-Hour": "18"},
    "context": {"country": "DE"},
    "force_arm": "gbm-v7",
    "at": _AT,
}
OFF_POLICY_QUESTION: Example = {
    "route": "ad-bidder",
    "policy": {"kind": "weights", "weights": {"logreg-v6": 5_000, "gbm-v7": 5_000}},
    "reward": {"expression": "revenue - 0.5 * cost", "default": 0.0},
    "from": "2026-01-01T00:00:00Z",
    "to": _AT,
    "clip": 20.0,
    "level": 0.95,
    "folds": 5,
    "most": 100_000,
}
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
    "mode": "weights",
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
MADE_OVERRIDE: Example = {
    **OVERRIDE,
    "id": 12,
    "author": "ci",
    "created_at": _AT,
    "state": "active",
    "matched": {"last_hour": 311, "last_day": 7_400, "last_at": _AT},
}
OVERRIDES: Example = {"overrides": [MADE_OVERRIDE]}
DRY_RUN_ANSWER: Example = {
    "route": "ad-bidder",
    "at": _AT,
    "unit": "u1",
    "arm": "gbm-v7",
    "reason": "OVERRIDE",
    "propensity": 1.0,
    "probabilities": {"gbm-v7": 1.0},
    "override": 12,
    "context": {"values": {"country": "DE", "hour": 18.0}, "missing": [], "unknown": []},
    "steps": [
        {"step": "kill_switch", "outcome": "off"},
        {"step": "forced_arm", "outcome": "not_allowed", "arm": "gbm-v7"},
        {
            "step": "override",
            "override": 14,
            "arm": "logreg-v6",
            "priority": 200,
            "outcome": "condition",
            "miss": {
                "condition": 0,
                "attribute": "header.x-app",
                "op": "semver_lt",
                "values": ["2.0.0"],
                "value": "2.1.0",
            },
            "share": 10_000,
        },
        {
            "step": "override",
            "override": 12,
            "arm": "gbm-v7",
            "priority": 100,
            "outcome": "matched",
            "share": 10_000,
        },
        {
            "step": "split",
            "outcome": "preceded",
            "bucket": 4_711,
            "share": {"arm": "logreg-v6", "start": 1_000, "end": 10_000},
        },
    ],
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
BANDIT: Example = {
    "route": "ad-bidder",
    "mode": "live",
    "reward": {"expression": "revenue - 0.5 * cost", "default": 0.0},
    "floor": 100,
    "caps": {"gbm-v7": 5_000},
    "discount": 0.99,
    "warm_up": 20,
    "learning_since": _AT,
    "learned_at": _AT,
    "published_at": _AT,
    "pending": {"decisions": 1_200, "first_due": _AT},
    "unusable": 3,
    "arms": [
        {
            "arm": "gbm-v7",
            "pulls": 4_100,
            "rewards": 3_500,
            "effective_samples": 3_120.5,
            "worth": 2_950.2,
            "warm": True,
            "mean_reward": 0.21,
            "share": 4_812.3,
            "coefficients": [{"column": "intercept", "mean": 0.18, "low": 0.15, "high": 0.21}],
        }
    ],
    "segments": [{"feature": "country", "value": "DE", "n": 412, "shares": {"gbm-v7": 4_990.2}}],
}
_ESTIMATE: Example = {
    "value": 0.0207,
    "standard_error": 0.0007,
    "low": 0.0193,
    "high": 0.0221,
    "effective_samples": 41_322.3,
    "mean_weight": 1.0,
    "max_weight": 5.0,
    "clipped_share": 0.0,
    "clipped_weight": 0.0,
}
_DIFFERENCE: Example = {"value": 0.0006, "standard_error": 0.0005, "low": -0.0004, "high": 0.0016}
_METHODS = ("ips", "snips", "direct_method", "doubly_robust")
OFF_POLICY_EVALUATION: Example = {
    "route": "ad-bidder",
    "policy": {"kind": "weights", "weights": {"logreg-v6": 5_000, "gbm-v7": 5_000}},
    "reward": {"expression": "revenue - 0.5 * cost", "default": 0.0},
    "since": "2026-01-01T00:00:00Z",
    "until": _AT,
    "n": 100_000,
    "units": 40_000,
    "left_out": {"without_context": 12},
    "level": 0.95,
    "clip": 20.0,
    "folds": 5,
    "logged": {**_ESTIMATE, "value": 0.0201, "effective_samples": 100_000.0, "max_weight": 1.0},
    "estimates": dict.fromkeys(_METHODS, _ESTIMATE),
    "differences": dict.fromkeys(_METHODS, _DIFFERENCE),
    "arms": [
        {
            "arm": "gbm-v7",
            "answers": True,
            "decisions": 10_000,
            "logged_share": 0.1,
            "target_share": 0.5,
            "mean_propensity": 0.1,
            "max_weight": 5.0,
            "effective_samples": 10_000.0,
            "found": 1.0,
            "found_error": 0.009,
            "unsupported": 0.0,
            "unsupported_error": 0.005,
        }
    ],
    "warnings": ["there are more decisions: of those asked for, the newest 100000 were judged"],
}
READY: Example = {"status": "ok", "snapshot": 42}
PROBLEM: Example = {
    "type": "about:blank",
    "title": "Unprocessable Entity",
    "status": 422,
    "detail": "route 'ad-bidder': split.weights cannot be: weights must sum to 10000, got 9000",
    "errors": [{"field": "split.weights", "message": "cannot be: weights must sum to 10000, got 9000"}],
}
