r"""A theorem confronted with numbers: what it predicts, what is measured, and a verdict.

A `Check` draws data, verifies the theorem's assumptions on it, computes both sides and says
`holds`, `violated`, `vacuous` or `assumption fails`. Its *control* is a case that breaks an
assumption and must not get through: a check whose control holds cannot see, whatever else it says.

    check                one theorem, for one kind of data
    case                 one point of the check's grid (any value its functions understand)
    data                 what `draw(key, case)` returns; everything else is a function of it
    slack                what is left of the bound; negative beyond it
    tightness            1 where the bound is attained; of a positive one 0 far away

An upper bound has slack = bound - measured and tightness = measured / bound; a lower bound the
reverse. Where the bound is negative that ratio exceeds 1, or is negative, on the side that is
allowed: read the slack. An equality law is a bound on the deviation: slack = tolerance -
|measured - predicted|, tightness = |measured - predicted| / tolerance. Both sides may be arrays of
one shape (many eigenvalues, many times): the numbers are then those of the entry with the least
slack.
"""

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import numpy as np

PRESETS = ("quick", "paper")


class DoesNotApply(Exception):
    """Why a check has nothing to say of somebody's embeddings; one clause."""


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Somebody's own representation, which a check may adapt to."""

    z: np.ndarray
    """[n d] float64, one row an example."""
    labels: np.ndarray | None = None
    """[n], from 0."""
    paired: np.ndarray | None = None
    """[n e], the other side of each row's pair."""

    def needs(self, *names: str) -> None:
        """Raises `DoesNotApply` unless "labels" or "paired" were given."""
        for name in names:
            if getattr(self, name) is None:
                raise DoesNotApply(f"needs --{name}")


class Verdict(enum.StrEnum):
    """What a check says of one case and seed."""

    HOLDS = "holds"
    VIOLATED = "violated"
    VACUOUS = "vacuous"
    ASSUMPTION_FAILS = "assumption fails"


def exact(data: Any) -> float:
    """No tolerance: the default of a check that states a bound."""
    return 0.0


@dataclass(frozen=True, kw_only=True)
class Check:
    r"""One theorem, as two functions of data and what it takes to compare them.

    Attributes:
        name: what the theorem is called; unique among the checks.
        source: authors, year, theorem or equation, and key in references.bib.
        statement: the inequality or law in one line.
        data: what the data are, in a few words.
        cases: for each preset ("quick", "paper") the grid: label to case.
        draw: `draw(key, case)` returns the data, of which the functions below are functions.
        assumptions: what the theorem asks of the data, in words, to whether it is so.
        predict: the theorem's side.
        measure: the other side; same shape as the prediction, or both scalar.
        relation: measured `<=`, `>=` or `==` predicted.
        tolerance: how far past a bound is still rounding or sampling error, or how far from a
            prediction a law allows; *derived*, and a function of the data like the rest. Positive
            for a law.
        trivial: what one knows without the theorem (risk <= 1; for a law, the deviation of a guess
            that knows nothing). A case is vacuous if no entry of the bound, tolerance included,
            says more. An infinite bound always is. None: never vacuous otherwise.
        control: a case on which an assumption is broken.
        symbols: the letters of the statement, to what they are, with shapes.
        predicted: what `predict` computes, and from what, in words.
        measured: what `measure` does, in words.
        broken: how the control breaks an assumption, in words.
        adapt: the data, made of `Embeddings`; raises `DoesNotApply`. None: the check is about
            something that embeddings alone do not have.
    """

    name: str
    source: str
    statement: str
    data: str
    cases: Mapping[str, Mapping[str, Any]]
    draw: Callable[[jax.Array, Any], Any]
    assumptions: Mapping[str, Callable[[Any], Any]]
    predict: Callable[[Any], Any]
    measure: Callable[[Any], Any]
    control: Any
    relation: Literal["<=", ">=", "=="] = "<="
    tolerance: Callable[[Any], Any] = exact
    trivial: Callable[[Any], Any] | None = None
    symbols: Mapping[str, str] = field(default_factory=dict)
    predicted: str = ""
    measured: str = ""
    broken: str = ""
    adapt: Callable[[Embeddings], Any] | None = None

    def __post_init__(self) -> None:
        """Refuse, with `ValueError`, what could never be judged."""
        if set(self.cases) != set(PRESETS) or not all(self.cases.values()):
            raise ValueError(f"{self.name}: cases must give a grid for each of {PRESETS}.")
        if self.relation == "==" and self.tolerance is exact:
            raise ValueError(f"{self.name}: a law needs a derived tolerance, if only rounding.")


@dataclass(frozen=True)
class Outcome:
    """The verdict on one draw, and the numbers behind it (None if an assumption fails)."""

    verdict: Verdict
    failed: tuple[str, ...] = ()  # the assumptions that do not hold
    predicted: np.ndarray | None = None
    measured: np.ndarray | None = None
    worst: int | None = None  # flat index of the entry with the least slack
    slack: float | None = None
    tightness: float | None = None
    beyond: bool = False  # whether some entry is past its tolerance by a number, not by a NaN

    @property
    def rejected(self) -> bool:
        """Whether the check saw that this draw must not get through, as it must a control's.

        A NaN alone is violated, for nothing was shown; but neither was anything seen.
        """
        return self.verdict == Verdict.ASSUMPTION_FAILS or self.beyond


@dataclass(frozen=True)
class Report:
    """All verdicts of one check: over cases and seeds, and on its control over seeds."""

    check: Check
    outcomes: Mapping[str, tuple[Outcome, ...]]  # one for each seed
    control: tuple[Outcome, ...]

    @property
    def control_rejected(self) -> bool:
        """Whether the control was rejected under every seed."""
        return all(outcome.rejected for outcome in self.control)

    @property
    def passed(self) -> bool:
        """Nothing violated, the control rejected, and something judged.

        A failed assumption is not a failed check, unless no case of the check's own grid meets
        what the theorem asks. Of somebody's embeddings, which have no control, none need to.
        """
        verdicts = {outcome.verdict for seeds in self.outcomes.values() for outcome in seeds}
        judged = not self.control or verdicts != {Verdict.ASSUMPTION_FAILS}
        return self.control_rejected and judged and Verdict.VIOLATED not in verdicts


def worst_of(outcomes: tuple[Outcome, ...]) -> Outcome:
    """The one to show for several seeds: by verdict (violated first), then by least slack."""
    order = (Verdict.VIOLATED, Verdict.ASSUMPTION_FAILS, Verdict.VACUOUS, Verdict.HOLDS)

    def rank(outcome):
        slack = 0.0 if outcome.slack is None else outcome.slack
        return order.index(outcome.verdict), -np.inf if np.isnan(slack) else slack

    return min(outcomes, key=rank)


def seed_of(key: jax.Array) -> tuple[int, ...]:
    """A key as plain numbers: for a cache of what was drawn, and for NumPy."""
    return tuple(np.asarray(jax.random.key_data(key)).tolist())


def generator(key: jax.Array) -> np.random.Generator:
    """NumPy's generator of a key, for draws in NumPy."""
    return np.random.default_rng(seed_of(key))


def judge(check: Check, data: Any) -> Outcome:
    """The verdict of a check on given data.

    Assumptions come first: where one fails the theorem says nothing and its sides are not computed.
    A NaN on either side is `violated`: nothing was shown. Raises `ValueError` if the two sides
    differ in shape or are empty.
    """
    failed = tuple(words for words, holds in check.assumptions.items() if not bool(holds(data)))
    if failed:
        return Outcome(Verdict.ASSUMPTION_FAILS, failed)
    predicted, measured = _numbers(check.predict(data)), _numbers(check.measure(data))
    if predicted.shape != measured.shape or predicted.size == 0:
        raise ValueError(
            f"predict and measure return shapes {predicted.shape} and {measured.shape}; "
            "they must agree and not be empty"
        )
    tolerance = np.broadcast_to(_numbers(check.tolerance(data)), predicted.shape)
    # Infinite and NaN entries are legal: a time that never comes, a run that diverged.
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        equal = measured == predicted  # infinity on both sides agrees
        gap = np.where(equal, 0.0, measured - predicted)
        match check.relation:
            case "<=":
                slack, margin = -gap, tolerance - gap
                tightness = np.where(equal, 1.0, measured / predicted)
            case ">=":
                slack, margin = gap, tolerance + gap
                tightness = np.where(equal, 1.0, predicted / measured)
            case "==":
                slack = margin = tolerance - np.abs(gap)
                tightness = np.abs(gap) / tolerance
    worst = int(np.argmin(np.where(np.isnan(margin), -np.inf, margin)))
    if not np.all(margin >= 0):
        verdict = Verdict.VIOLATED
    elif _vacuous(check, data, predicted, tolerance):
        verdict = Verdict.VACUOUS
    else:
        verdict = Verdict.HOLDS
    numbers = (float(slack.flat[worst]), float(tightness.flat[worst]))
    return Outcome(verdict, (), predicted, measured, worst, *numbers, bool(np.any(margin < 0)))


def run(check: Check, *, preset: str = "quick", seeds: int = 1) -> Report:
    """Judge a check on every case of a preset and on its control, each under `seeds` keys.

    Seed i is `jax.random.key(i)` for every case (common random numbers: a grid is a curve, not a
    scatter).
    """
    keys = [jax.random.key(seed) for seed in range(seeds)]

    def judge_all(case):
        return tuple(judge(check, check.draw(key, case)) for key in keys)

    outcomes = {label: judge_all(case) for label, case in check.cases[preset].items()}
    return Report(check, outcomes, judge_all(check.control))


def judge_embeddings(check: Check, given: Embeddings) -> Outcome | str:
    """The verdict of a check on somebody's embeddings, or why it has none."""
    if check.adapt is None:
        return f"it is about {check.data}"
    try:
        return judge(check, check.adapt(given))
    except DoesNotApply as why:
        return str(why)


def _vacuous(check: Check, data: Any, predicted: np.ndarray, tolerance: np.ndarray) -> bool:
    """Whether no entry says more than what is known without the theorem."""
    known = None if check.trivial is None else _numbers(check.trivial(data))
    # What `holds` leaves open ends at the tolerance, not at the bound.
    match check.relation:
        case "<=":
            return bool(np.all(predicted + tolerance >= (np.inf if known is None else known)))
        case ">=":
            return bool(np.all(predicted - tolerance <= (-np.inf if known is None else known)))
        case "==":
            return bool(np.all(tolerance >= (np.inf if known is None else known)))


def _numbers(value: Any) -> np.ndarray:
    return np.asarray(value, dtype=np.float64)
