"""Regression of least norm over the number of features, and what belongs to double descent.

Many draws of the examples; the test error of each is exact (features are isotropic: it is a
distance between coefficients), so only the examples are sampled.
"""

import dataclasses

import numpy as np
from scipy import sparse, spatial, stats

from rlkit.theory import double_descent as theory
from rlkit.theory.checks import Check, DoesNotApply, Embeddings, generator

HASTIE = "Hastie et al. 2022 [hastie2022surprises]"
NAKKIRAN = "Nakkiran et al. 2020 [nakkiran2020deep]"
GU = "Gu, Zheng and Aste 2024 [gu2024unraveling]"
SIGMAS = 5
"""Standard errors that a tolerance allows: one in 10^6 for each entry."""


@dataclasses.dataclass(frozen=True)
class Case:
    """n examples of `total` features, of which the first p are used."""

    n: int = 50
    widths: tuple[int, ...] = (10, 25, 40, 65, 100, 200)
    total: int = 200
    signal: float = 1.0
    noise: float = 0.25
    ridge: float = 0.0
    """In units of the best one."""
    trials: int = 100

    @property
    def setting(self) -> dict:
        """What the closed forms are functions of, but for p."""
        return {"n": self.n, "total": self.total, "signal": self.signal, "noise": self.noise}


@dataclasses.dataclass(frozen=True)
class Errors:
    """Test errors [trials widths]."""

    case: Case
    errors: np.ndarray


def draw(key, case: Case) -> Errors:
    """All widths see the same examples and labels."""
    rng = generator(key)
    x = rng.normal(size=(case.trials, case.n, case.total))
    beta = rng.normal(size=(case.trials, case.total, 1))
    beta *= np.sqrt(case.signal) / np.linalg.norm(beta, axis=1, keepdims=True)
    y = x @ beta + np.sqrt(case.noise) * rng.normal(size=(case.trials, case.n, 1))
    errors = []
    for p in case.widths:
        rest = case.noise + case.signal * (1 - p / case.total)
        found = _fit(x[:, :, :p], y, case.ridge * rest * case.total / case.signal)
        wrong = np.sum((found - beta[:, :p]) ** 2, axis=(1, 2))
        errors.append(wrong + case.noise + np.sum(beta[:, p:] ** 2, axis=(1, 2)))
    return Errors(case, np.stack(errors, axis=1))


def _fit(x: np.ndarray, y: np.ndarray, ridge: float) -> np.ndarray:
    """Coefficients of least norm, or of ridge regression."""
    n, p = x.shape[1:]
    across = np.swapaxes(x, 1, 2)
    if p < n:
        return np.linalg.solve(across @ x + ridge * np.eye(p), across @ y)
    return across @ np.linalg.solve(x @ across + ridge * np.eye(n), y)


def _mean(run: Errors) -> np.ndarray:
    return run.errors.mean(axis=0)


def _sampling(run: Errors) -> np.ndarray:
    return SIGMAS * run.errors.std(axis=0) / np.sqrt(len(run.errors))


def _widths(run: Errors) -> np.ndarray:
    return np.array(run.case.widths)


def _limit(run: Errors) -> np.ndarray:
    """The asymptotic law of each width, whose left-out features are noise."""
    case, limits = run.case, []
    for p in case.widths:
        rest = case.noise + case.signal * (1 - p / case.total)
        share = case.signal * p / case.total
        limits.append(rest + theory.asymptotic_risk(p / case.n, signal=share, noise=rest))
    return np.array(limits)


def _limit_tolerance(run: Errors) -> np.ndarray:
    """Sampling, and by what the law of finite n differs: an inverse Wishart mean, known exactly."""
    case, gaps = run.case, []
    for p in case.widths:
        rest = case.noise + case.signal * (1 - p / case.total)
        n, gap = case.n, abs(case.n - p)
        gaps.append(rest * min(n, p) * (1 / (gap - 1) - 1 / gap))
    return _sampling(run) + np.array(gaps)


# --- effective model complexity ------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Complexity:
    """Least squares with p features, on more and more examples."""

    p: int = 20
    noise: float = 1.0
    eps: float = 0.25
    ridge: float = 0.0
    trials: int = 200


def _draw_complexity(key, case: Complexity):
    """Mean training errors on 1, 2, ... examples, to twice as many as are predicted."""
    rng = generator(key)
    most = int(2 * case.p / (1 - case.eps / case.noise))
    x = rng.normal(size=(case.trials, most, case.p))
    beta = rng.normal(size=(case.trials, case.p, 1)) / np.sqrt(case.p)
    y = x @ beta + np.sqrt(case.noise) * rng.normal(size=(case.trials, most, 1))
    errors = []
    for n in range(1, most + 1):
        fitted = x[:, :n] @ _fit(x[:, :n], y[:, :n], case.ridge)
        errors.append(np.mean((y[:, :n] - fitted) ** 2))
    return case, np.array(errors)


def _complexity(run) -> float:
    case, errors = run
    # Rounding aside: below p the error is 0.
    return float(np.sum(np.logical_and.accumulate(errors <= case.eps)))


def _complexity_law(run) -> float:
    case, _ = run
    return theory.effective_model_complexity(p=case.p, noise=case.noise, eps=case.eps)


def _complexity_tolerance(run) -> float:
    """Whole numbers, and the error of the mean training error over its slope in n.

    n errors are noise times a chi-square of n - p degrees; noise (1 - p / n) has the slope
    noise p / n^2.
    """
    case, _ = run
    n = case.p / (1 - case.eps / case.noise)
    spread = np.sqrt(2 * (n - case.p)) / n / np.sqrt(case.trials)
    return 1 + SIGMAS * spread * n**2 / case.p


# --- labels recovered by neighbours --------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Votes:
    """Two well separated classes of points, of which some labels are flipped."""

    flip: float = 0.2
    k: int = 5
    n: int = 1200
    memorized: bool = False
    """Whether the features know the flipped labels, as those of a network at the peak do."""


@dataclasses.dataclass(frozen=True)
class Voted:
    """Of every point: its true class, its label, and its k neighbours [n k]."""

    case: Votes
    true: np.ndarray
    label: np.ndarray
    neighbors: np.ndarray


def _draw_votes(key, case: Votes) -> Voted:
    rng = generator(key)
    true = np.arange(case.n) % 2
    label = np.where(rng.uniform(size=case.n) < case.flip, 1 - true, true)
    features = rng.normal(size=(case.n, 4))
    features[:, 0] += 20 * true
    if case.memorized:
        features[:, 1] += 20 * label
    return _voted(case, true, label, features)


def adapt_votes(given: Embeddings) -> Voted:
    """Somebody's embeddings; classes of even against those of odd number, a fifth flipped."""
    given.needs("labels")
    if len(given.z) < 100:
        raise DoesNotApply("needs 100 rows, for some of them to be flipped")
    case, true = Votes(n=len(given.z)), np.asarray(given.labels) % 2
    rng = np.random.default_rng((2024, *given.z.shape))  # not what the rows were drawn with
    flipped = rng.uniform(size=case.n) < case.flip
    return _voted(case, true, np.where(flipped, 1 - true, true), given.z)


def _voted(case: Votes, true, label, features) -> Voted:
    found = spatial.cKDTree(features).query(features, case.k + 1)[1]
    itself = found == np.arange(len(found))[:, None]
    itself[:, -1] |= ~itself.any(axis=1)  # its duplicates are as near as it is
    return Voted(case, true, label, found[~itself].reshape(len(found), case.k))


def _recovered(run: Voted) -> float:
    wrong = run.label != run.true
    votes = np.mean(run.label[run.neighbors], axis=1) > 0.5
    return np.mean(votes[wrong] == run.true[wrong])


def _votes_tolerance(run: Voted) -> float:
    """From the covariance of votes on points that share voters, or vote for one another.

    Given the points, labels are flipped independently of one another: all others are uncorrelated.
    """
    case, wrong = run.case, np.flatnonzero(run.label != run.true)
    rows = np.repeat(np.arange(len(wrong)), case.k)
    columns = run.neighbors[wrong].ravel()
    voters = sparse.csr_array((np.ones(rows.size, int), (rows, columns)), (len(wrong), case.n))
    asks = voters[:, wrong]
    # What a pair's covariance depends on, as one number.
    pairs = voters @ voters.T + (case.k + 1) * (asks + 2 * asks.T)
    covariance = _vote_covariance(case.k, case.flip).ravel()
    return SIGMAS * np.sqrt(np.sum(covariance[pairs.data])) / len(wrong)


def _vote_covariance(k: int, flip: float) -> np.ndarray:
    """[4, k + 1], of the votes on two flipped points about the law's share, by common voters.

    Rows: neither is a voter of the other, the second is one of the first, the reverse, both. A
    flipped voter votes wrong; common voters are as many successes for both.
    """
    share = theory.label_recovery(k=k, flip=flip)

    def won(free, given=0):
        return stats.binom.sf(k // 2 - given, free, 1 - flip)

    covariance = np.zeros((4, k + 1))
    for row, (a, b) in enumerate(((0, 0), (1, 0), (0, 1), (1, 1))):
        for s in range(k + 1 - max(a, b)):
            right = np.arange(s + 1)
            product = won(k - s - a, right) * won(k - s - b, right)
            both = stats.binom.pmf(right, s, 1 - flip) @ product
            covariance[row, s] = both - share * (won(k - a) + won(k - b)) + share**2
    return covariance


CURVES = {
    "quick": {f"noise {s:g}": Case(noise=s) for s in (0.04, 0.25, 1.0)},
    "paper": {
        f"n={n}, noise {s:g}": Case(
            n, (n // 5, n // 2, 4 * n // 5, 6 * n // 5, 2 * n, 4 * n), 4 * n, 1.0, s, trials=400
        )
        for n in (100, 200)
        for s in (0.04, 0.25, 1.0)
    },
}
APART = {"no width is within 10 of n": lambda run: np.all(np.abs(_widths(run) - run.case.n) >= 10)}

CHECKS = (
    Check(
        name="double descent: error over the number of features",
        source=f"{HASTIE}; for finite n derived here",
        statement="s^2 (1 + p / (n - p - 1)), then s^2 (1 + n / (p - n - 1)) + r_p^2 (1 - n / p)",
        data="least-norm regression on p of D Gaussian features",
        symbols={
            "s^2": "variance of the noise",
            "p, n": "features used, examples",
            "r_p^2": "squared length of the coefficients used",
        },
        predicted="the closed form of finite n",
        measured="exact test error, mean over draws of the examples",
        broken="the best ridge, which has no peak",
        cases=CURVES,
        draw=draw,
        assumptions=APART,
        predict=lambda run: theory.subset_error(_widths(run), **run.case.setting),
        measure=_mean,
        relation="==",
        tolerance=_sampling,
        # Who knows nothing says that nothing can be learned.
        trivial=lambda run: np.abs(
            theory.subset_error(_widths(run), **run.case.setting) - run.case.noise - run.case.signal
        ),
        # The best ridge leaves no peak.
        control=Case(ridge=1.0),
    ),
    Check(
        name="double descent: its limit",
        source=f"{HASTIE}, Theorem 1",
        statement="s^2 / (1 - g) for g = p / n < 1, s^2 g / (g - 1) + r_p^2 (1 - 1 / g) beyond",
        data="least-norm regression on p of D Gaussian features",
        symbols={
            "s^2": "variance of the noise",
            "p, n": "features used, examples",
            "r_p^2": "squared length of the coefficients used",
            "g": "p / n",
        },
        predicted="the asymptotic law of each width",
        measured="exact test error, mean over draws of the examples",
        broken="the best ridge, which has no peak",
        cases=CURVES,
        draw=draw,
        assumptions=APART,
        predict=_limit,
        measure=_mean,
        relation="==",
        tolerance=_limit_tolerance,
        trivial=lambda run: np.abs(_limit(run) - run.case.noise - run.case.signal),
        control=Case(ridge=1.0),
    ),
    Check(
        name="double descent: the best ridge has no peak",
        source=f"{HASTIE}; derived here",
        statement="ridge with lambda = s^2 D / r^2 is no worse than least norm, nor than 0",
        data="ridge regression on p of D Gaussian features",
        symbols={
            "lambda": "weight of the penalty",
            "s^2": "variance of the noise",
            "D, r^2": "features, squared length of their coefficients",
        },
        predicted="the smaller error, of least norm and of no features",
        measured="exact test error with the ridge, mean over draws",
        broken="no ridge",
        cases={
            preset: {label: dataclasses.replace(case, ridge=1.0) for label, case in cases.items()}
            for preset, cases in CURVES.items()
        },
        draw=draw,
        assumptions=APART,
        predict=lambda run: theory.tuned_error(_widths(run), **run.case.setting),
        measure=_mean,
        tolerance=_sampling,
        control=Case(ridge=0.0),
    ),
    Check(
        name="double descent: effective model complexity",
        source=f"{NAKKIRAN}, Definition 1; evaluated here",
        statement="max n with training error <= eps is p / (1 - eps / sigma^2)",
        data="least squares on n examples",
        symbols={
            "n": "examples",
            "eps": "training error that counts as a fit",
            "p": "features",
            "sigma^2": "variance of the noise",
        },
        predicted="from p, eps and the noise",
        measured="most examples whose mean training error stays at most eps",
        broken="ridge regression, which fits none",
        cases={
            "quick": {
                "p=10, eps=0.25": Complexity(10),
                "p=20, eps=0.25": Complexity(20),
                "p=20, eps=0.5": Complexity(20, eps=0.5),
            },
            "paper": {
                f"p={p}, eps={eps:g}": Complexity(p, eps=eps)
                for p in (20, 50, 100)
                for eps in (0.1, 0.25, 0.5)
            },
        },
        draw=_draw_complexity,
        assumptions={"eps < sigma^2": lambda run: run[0].eps < run[0].noise},
        predict=_complexity_law,
        measure=_complexity,
        relation="==",
        tolerance=_complexity_tolerance,
        trivial=_complexity_law,
        # A penalised fit interpolates nothing.
        control=Complexity(20, ridge=20.0),
    ),
    Check(
        name="double descent: neighbours recover flipped labels",
        source=f"{GU}; derived here",
        statement="share of flipped labels undone by k neighbours = Pr(Bin(k, 1 - p) > k / 2)",
        data="separated classes with flipped labels",
        symbols={"p": "share of flipped labels", "k": "neighbours, an odd number"},
        predicted="from p and k",
        measured="share of flipped points outvoted by their neighbours",
        broken="features that know the flipped labels",
        adapt=adapt_votes,
        cases={
            "quick": {
                f"p={p:g}, k={k}": Votes(p, k, 20_000) for p, k in ((0.1, 1), (0.2, 5), (0.3, 5))
            },
            "paper": {
                f"p={p:g}, k={k}": Votes(p, k, 40_000) for p in (0.1, 0.2, 0.4) for k in (1, 5, 15)
            },
        },
        draw=_draw_votes,
        assumptions={
            "neighbours are of one true class": lambda run: np.all(
                run.true[run.neighbors] == run.true[:, None]
            )
        },
        predict=lambda run: theory.label_recovery(k=run.case.k, flip=run.case.flip),
        measure=_recovered,
        relation="==",
        tolerance=_votes_tolerance,
        # A coin.
        trivial=lambda run: theory.label_recovery(k=run.case.k, flip=run.case.flip) - 0.5,
        # Flipped labels have neighbours that are flipped.
        control=Votes(memorized=True),
    ),
)
