"""What does the reader see? One line a day, then the timeline; plain where the output is no terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from app.control.views import ArmEvidence, ChampionView, EntryView, EvaluationView
from app.demo.dataset import Split
from app.demo.ledger import LEDGER, Decision
from app.demo.models import Name
from app.demo.route import CONFIDENCE, DAY_SECONDS, MAX_EXPECTED_LOSS, MINIMUM_DAYS, RAMP, WINNING_DAYS
from app.demo.traffic import USERS, Tally
from policies.ramps import next_share
from policies.types import Action, Verdict

_INDENT = 2
_LABEL = 11
_REASON_INDENT = 12
_HEADING = "bold cyan"
_ABOUT = {
    Name.LOGREG: "champion: logistic regression on four features, known before a page is opened",
    Name.GBM: "challenger: gradient boosting on all nine features",
    Name.FOREST: "a challenger for later: a random forest whose endpoint is broken",
}
_STYLES = {
    Verdict.WIN: "green",
    Verdict.LOSE: "red",
    Verdict.UNHEALTHY: "red",
    Verdict.ERROR: "red",
    Verdict.INSUFFICIENT_DATA: "dim",
}


@dataclass(frozen=True, slots=True)
class _Column:
    width: int
    right: bool = False


_COLUMNS = (
    _Column(3, right=True),
    _Column(5, right=True),
    _Column(11, right=True),
    _Column(11, right=True),
    _Column(7, right=True),
    _Column(17),
    _Column(6, right=True),
    _Column(12),
)


class Printout:
    """Writes the story to a console as it happens. Mutable state: the number of days shown of the trial."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._days = 0

    def introduction(self, split: Split, seed: int, days: int) -> None:
        """What is about to happen, with which data and by which rule."""
        self._heading("A filter decides about web pages: let one through, or block it")
        self._say(_data(split, seed), label="data")
        self._say(f"{USERS:,} users, each of whom always gets the same arm", label="traffic")
        for number, line in enumerate(_ledger()):
            self._say(line, label="" if number else "ledger")
        for name, about in _ABOUT.items():
            self._say(about, label=name)
        self._say(_rule(days), label="rule")

    def addresses(self, gateway: str, control: str) -> None:
        """Where Kingmaker runs."""
        self._heading("Kingmaker runs")
        self._say(gateway, label="gateway")
        self._say(f"{control}  (API at {control}/docs)", label="control")

    def trial(self, champion: str, challenger: str, share: int) -> None:
        """A challenger gets its first traffic, and its days follow."""
        self._heading(f"{challenger} is registered, and put on trial with {_percent(share)} of the traffic")
        self._say(
            "Profit in cents a page over all days so far, ± its 95 % interval; the chance that the "
            f"challenger is better (a win needs more than {CONFIDENCE}, and little to lose); share and "
            "streak are the challenger's."
        )
        titles = ("day", "share", champion, challenger, "chance", "verdict", "streak", "action")
        self.console.print(_line(titles), style="bold", soft_wrap=True)

    def evaluation(self, evaluation: EvaluationView) -> None:
        """One run of the policy: a line of the table, or a sentence when a guardrail spoke."""
        if evaluation.kind == "guardrail":
            self._say(evaluation.reason, style="red")
            return
        self._days += 1
        style = _STYLES.get(evaluation.verdict, "")
        self.console.print(_line(_cells(self._days, evaluation)), style=style, soft_wrap=True)

    def crowned(self, evaluation: EvaluationView) -> None:
        """The challenger was promoted."""
        self._heading(f"{evaluation.challenger} is champion, by the policy's own action")
        self._say(evaluation.reason)

    def broken(self, name: str, fail_every: int, share: int) -> None:
        """The broken challenger gets its traffic."""
        self._days = 0
        self._heading(
            f"{name} is registered and gets {_percent(share)}; it fails one request in {fail_every}"
        )

    def saved(self, seconds: float, fallbacks: int, tally: Tally) -> None:
        """The guardrail took the traffic away, and nobody saw an error."""
        self._say(f"Rolled back by its guardrail {seconds:.1f} s after its start.")
        self._say(f"{fallbacks} requests that it failed were answered by the champion instead.")
        self._say(
            f"Errors that callers saw in the whole story: {tally.errors} of {tally.requests:,} requests."
        )

    def timeline(self, entries: Sequence[EntryView], champion: ChampionView) -> None:
        """Everything that changed the route, oldest first, and who is champion now."""
        self._heading("The timeline")
        for entry in entries:
            what = entry.kind.value.replace("_", " ")
            head = f"{entry.at:%H:%M:%S}  {what:<18} {entry.actor:<10} {_shares(entry.weights)}"
            self._say(head)
            self._say(entry.reason, style="dim", indent=_REASON_INDENT)
        self._say(f"Champion since {champion.since:%H:%M:%S}: {champion.champion}", style="bold")

    def next_steps(self, gateway: str, control: str, route: str, kept: str | None) -> None:
        """Where to look from here."""
        self._heading("Where to look next")
        if kept is not None:
            self._say(f"Everything still runs, with its data and logs in {kept}, until you press Ctrl-C:")
            self._say(f"curl -s {control}/v1/routes/{route}/evaluations?limit=1")
            self._say(f"curl -s {control}/v1/routes/{route}/champion")
            self._say(f"{control}/docs         the API")
            self._say(f"{gateway}/metrics      what the gateway counts")
            return
        self._say("kingmaker demo --keep              leaves all of this running")
        self._say("deploy/routes.example.yaml         a route of your own starts from this file")
        self._say("kingmaker serve --config FILE      puts it before your models")

    def _heading(self, text: str) -> None:
        self.console.print()
        self.console.print(text, style=_HEADING)

    def _say(self, text: str, *, label: str | None = None, style: str = "", indent: int = _INDENT) -> None:
        """Text below an indent, or beside a label, wrapped without blanks at the ends of lines."""
        margin = " " * indent + (label.ljust(_LABEL) if label is not None else "")
        for line in Text(text, style=style).wrap(self.console, self.console.width - len(margin)):
            line.rstrip()
            self.console.print(Text(margin) + line, soft_wrap=True)
            margin = " " * len(margin)


def _data(split: Split, seed: int) -> str:
    training, live = len(split.training), len(split.live)
    return (
        f"{training + live:,} real web pages (Phishing, UCI; it comes inside the package river). {training} "
        f"train the models; the other {live} are sent live. The traffic needs more than {live}, so they are "
        f"sent again and again, each time in a new order (seed {seed})."
    )


def _ledger() -> Iterator[str]:
    yield f"{'cents a page (amounts of our own)':<36}{'revenue':>7}{'cost':>6}"
    for (decision, phishing), account in LEDGER.items():
        page = "phishing" if phishing else "honest"
        done = "let through" if decision is Decision.ALLOW else "blocked"
        yield f"{f'{page}, {done}':<36}{account.revenue:>7}{account.cost:>6}"


def _rule(days: int) -> str:
    steps = " → ".join(_percent(share) for share in RAMP)
    return (
        f"the default one: P(better) > {CONFIDENCE}, and an expected loss of at most {MAX_EXPECTED_LOSS:.1%} "
        f"of the champion's mean, on {WINNING_DAYS} days running, with {MINIMUM_DAYS} days of evidence at "
        f"least; here in steps {steps} as long as it goes on winning. Undecided after {days} days it ends. "
        f"A day lasts {DAY_SECONDS} s."
    )


def _cells(number: int, evaluation: EvaluationView) -> tuple[str, ...]:
    share = evaluation.weights[evaluation.challenger]
    return (
        str(number),
        _percent(share),
        _mean(evaluation.arms.get(evaluation.champion)),
        _mean(evaluation.arms.get(evaluation.challenger)),
        _chance(evaluation.chance_to_beat),
        evaluation.verdict.value.replace("_", " "),
        str(evaluation.streak.winning),
        _action(evaluation.action, share),
    )


def _action(action: Action, share: int) -> str:
    return f"step to {_percent(next_share(RAMP, share))}" if action is Action.STEP else action.value


def _mean(arm: ArmEvidence | None) -> str:
    return f"{arm.mean:.1f} ±{(arm.high - arm.low) / 2:.1f}" if arm is not None else "–"


def _chance(chance: float | None) -> str:
    if chance is None:
        return "–"
    return f"{chance:.4f}" if chance < 0.99995 else ">.9999"


def _line(cells: Sequence[str]) -> str:
    placed = zip(cells, _COLUMNS, strict=True)
    texts = (
        text.rjust(column.width) if column.right else text.ljust(column.width) for text, column in placed
    )
    return (" " * _INDENT + " ".join(texts)).rstrip()


def _shares(weights: dict[str, int]) -> str:
    held = sorted(((share, arm) for arm, share in weights.items() if share), reverse=True)
    return ", ".join(f"{arm} {_percent(share)}" for share, arm in held)


def _percent(share: int) -> str:
    return f"{share / 100:g} %"
