"""What the control plane answers about shadow arms: counts, and shares, which are null where of nothing."""

from __future__ import annotations

from datetime import datetime

from pydantic import ConfigDict, Field

from app.control.examples import Example
from app.control.views import View
from app.db.shadows import Agreement, PredictionAgreement

_EXAMPLE: Example = {
    "route": "ad-bidder",
    "since": "2026-01-30T12:00:00Z",
    "until": "2026-01-31T12:00:00Z",
    "arms": [
        {
            "arm": "gbm-v8",
            "copies": 1_000,
            "answered": 0.998,
            "paired": 998,
            "same_status": 1.0,
            "same_body": 0.42,
            "latency_ms": 12.5,
            "primary_latency_ms": 9.8,
            "compared": 998,
            "predictions": {
                "score": {
                    "n": 998,
                    "missing": 0,
                    "equal": 0.42,
                    "mean_absolute_difference": 0.013,
                    "labels": [],
                    "other_labels": 0,
                },
                "decision": {
                    "n": 998,
                    "missing": 0,
                    "equal": 0.97,
                    "labels": [
                        {"primary": "bid", "shadow": "bid", "n": 968},
                        {"primary": "bid", "shadow": "pass", "n": 30},
                    ],
                    "other_labels": 0,
                },
            },
        }
    ],
}


class LabelPairView(View):
    """How often the primary said one label and the shadow arm the other, which may be the same."""

    primary: str
    shadow: str
    n: int


class PredictionView(View):
    """How two arms agree on a declared field of their answers."""

    n: int = Field(description="Pairs of answers that both name the field.")
    missing: int = Field(description="Pairs of which at least one does not.")
    equal: float | None
    mean_absolute_difference: float | None = Field(default=None, description="Of numbers.")
    labels: list[LabelPairView] = Field(description="The most frequent pairs of labels.")
    other_labels: int = Field(description="Pairs of labels that are not listed.")


class AgreementView(View):
    """How a shadow arm's answers agree with those that callers got."""

    arm: str
    copies: int
    answered: float | None = Field(description="The share of copies that came to a whole answer.")
    paired: int = Field(description="Copies of which the caller had a whole answer too.")
    same_status: float | None = Field(description="Of the pairs.")
    same_body: float | None = Field(description="Of the pairs whose bodies are both at most 1 MiB.")
    latency_ms: float | None = Field(description="The mean over the pairs.")
    primary_latency_ms: float | None = Field(description="The mean over the pairs.")
    compared: int = Field(description="How many pairs, the newest, the predictions are of.")
    predictions: dict[str, PredictionView]


class ShadowReport(View):
    """The shadow arms that were sent copies in a span of time."""

    model_config = ConfigDict(frozen=True, json_schema_extra={"examples": [_EXAMPLE]})

    route: str
    since: datetime
    until: datetime
    arms: list[AgreementView]


def agreement_view(arm: str, agreement: Agreement) -> AgreementView:
    """How one shadow arm agrees."""
    return AgreementView(
        arm=arm,
        copies=agreement.copies,
        answered=_share(agreement.answered, agreement.copies),
        paired=agreement.paired,
        same_status=_share(agreement.same_status, agreement.paired),
        same_body=_share(agreement.same_body, agreement.hashed),
        latency_ms=agreement.latency_ms,
        primary_latency_ms=agreement.primary_latency_ms,
        compared=agreement.compared,
        predictions={name: _prediction(found) for name, found in agreement.predictions.items()},
    )


def _prediction(found: PredictionAgreement) -> PredictionView:
    return PredictionView(
        n=found.n,
        missing=found.missing,
        equal=_share(found.equal, found.n),
        mean_absolute_difference=found.mean_absolute_difference,
        labels=[LabelPairView(primary=pair.primary, shadow=pair.shadow, n=pair.n) for pair in found.labels],
        other_labels=found.other_labels,
    )


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
