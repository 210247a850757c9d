"""Which metrics are there, of which kind, and what does each one say? Whatever is counted is listed here."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

LATENCY_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Kind(StrEnum):
    """What may become of a value, in the words of Prometheus."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Family:
    """A metric: its kind, its labels besides `worker`, and its help text."""

    kind: Kind
    labels: tuple[str, ...]
    text: str


def _counter(text: str, *labels: str) -> Family:
    return Family(Kind.COUNTER, labels, text)


def _gauge(text: str, *labels: str) -> Family:
    return Family(Kind.GAUGE, labels, text)


def _histogram(text: str, *labels: str) -> Family:
    return Family(Kind.HISTOGRAM, labels, text)


_ARM = ("route", "arm")

FAMILIES: dict[str, Family] = {
    # exchanges
    "kingmaker_requests_total": _counter(
        "Requests ended, by the arm that served them, why it did, and class of status.",
        *(*_ARM, "reason", "code"),
    ),
    "kingmaker_request_duration_seconds": _histogram(
        "Time from a whole request to its whole answer, by the arm that served it.", *_ARM
    ),
    "kingmaker_requests_in_flight": _gauge("Exchanges that an arm has not ended yet.", *_ARM),
    "kingmaker_fallbacks_total": _counter(
        "Requests that the champion answered in place of the assigned arm.", *_ARM
    ),
    "kingmaker_unrouted_requests_total": _counter("Requests that no route matches."),
    "kingmaker_refused_requests_total": _counter("Requests refused before routing, by status.", "code"),
    "kingmaker_missing_units_total": _counter(
        "Requests without the unit that their route declares.", "route"
    ),
    "kingmaker_plan_failures_total": _counter(
        "Routes of which context or overrides were left out, because they could not be read.", "route"
    ),
    "kingmaker_assignment_failures_total": _counter(
        "Requests for the champion because assignment failed.", "route"
    ),
    "kingmaker_bandit_fault": _gauge(
        "1: the bandit cannot choose, so the champion answers what is not pinned.", "route"
    ),
    "kingmaker_bandit_learned_age_seconds": _gauge(
        "Time since the bandit last learnt what this worker knows of it.", "route"
    ),
    "kingmaker_first_arms_total": _counter(
        "Units whose first arm the store was asked for: it was new, was kept, or the store was away.",
        *("route", "result"),
    ),
    "kingmaker_first_arm_store_up": _gauge("1: the store of first arms answers; 0: arms are by hash."),
    # arms
    "kingmaker_upstream_duration_seconds": _histogram(
        "Time from the first byte sent to an arm to the last one received.", *_ARM
    ),
    "kingmaker_upstream_connects_total": _counter("Connections to arms, by result.", *_ARM, "result"),
    "kingmaker_upstream_errors_total": _counter("Attempts that failed, by kind.", *_ARM, "kind"),
    "kingmaker_retries_total": _counter("Attempts that were repeated on the same arm, by why.", *_ARM, "why"),
    "kingmaker_shed_requests_total": _counter(
        "Requests that an arm was not asked because it had too many.", *_ARM, "reason"
    ),
    "kingmaker_ejections_total": _counter("Times an arm was ejected for failing.", *_ARM),
    "kingmaker_arm_ejected": _gauge("1: this worker does not ask the arm, because it failed.", *_ARM),
    "kingmaker_arm_healthy": _gauge("1: the arm answers, and passes its health checks if it has any.", *_ARM),
    "kingmaker_shadow_requests_total": _counter(
        "Copies sent to shadow arms, by class of status.", *_ARM, "code"
    ),
    "kingmaker_shadow_drops_total": _counter("Copies not sent to shadow arms, by reason.", *_ARM, "reason"),
    "kingmaker_local_kill_switch": _gauge(
        "1: a kill switch that was set on this worker sends all to the champion.", "route"
    ),
    "kingmaker_local_kill_refusals_total": _counter(
        "Kill switches set on this worker that it did not take, being no proper ones."
    ),
    # outcomes and events
    "kingmaker_outcomes_accepted_total": _counter("Outcomes made durable."),
    "kingmaker_outcomes_rejected_total": _counter("Outcomes refused, by code.", "code"),
    "kingmaker_questions_total": _counter(
        "Assignments asked for without a request to an arm, by call (decide, flag, flags) and status.",
        *("call", "code"),
    ),
    "kingmaker_exposures_accepted_total": _counter("Exposures made durable."),
    "kingmaker_exposures_rejected_total": _counter("Exposures refused, by code.", "code"),
    "kingmaker_spool_waiting": _gauge("Events that wait for the disk."),
    "kingmaker_spool_dropped_total": _counter("Decisions that could not be written down."),
    # the worker
    "kingmaker_connections": _gauge("Open connections of callers."),
    "kingmaker_snapshot_version": _gauge("Version of the snapshot in use."),
    "kingmaker_snapshot_age_seconds": _gauge("Time since the snapshot in use was made."),
    "kingmaker_snapshot_failures_total": _counter("Snapshots that could not be used."),
    "kingmaker_access_log_dropped_total": _counter("Lines of the access log that were not written."),
    "kingmaker_spans_dropped_total": _counter("Spans that no receiver took."),
    "kingmaker_series_overflows_total": _counter("Series counted under other names, being too many."),
    "process_cpu_seconds_total": _counter("Processor time spent by this worker."),
    "process_resident_memory_bytes": _gauge("Memory of this worker that is in RAM."),
    "process_open_fds": _gauge("Open file descriptors of this worker."),
    "process_max_fds": _gauge("The most file descriptors that this worker may open."),
    "process_start_time_seconds": _gauge("When this worker started, in Unix time."),
}
