"""Predicting one part of the input from another: linear labels, few labels, and what a link costs.

Discrete variables with a joint table, and Gaussian ones with known covariances: X1 and X2 are made
from Y, with noise of their own and, against the theorem, noise that X2 has from X1.
"""

import dataclasses

import jax
import numpy as np

from rlkit.theory import pretext
from rlkit.theory.checks import Check, generator

SOURCE = "Lee et al. 2021 [lee2021predicting]"
EPS = np.finfo(float).eps


# --- tables --------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Table:
    """How many values Y, X1 and X2 have, and the weight of a table in which X1 and X2 depend."""

    k: int = 3
    n1: int = 30
    n2: int = 20
    d2: int = 6
    link: float = 0.0


@dataclasses.dataclass(frozen=True)
class Joint:
    """What the joint table gives."""

    case: Table
    psi: np.ndarray
    means: np.ndarray
    posterior: np.ndarray
    prior: np.ndarray


def tabulate(key, case: Table) -> Joint:
    """P(y, x1, x2), with values of X2 in R^d2."""
    rng = generator(key)
    prior = rng.dirichlet(np.full(case.k, 5.0))
    first = rng.dirichlet(np.ones(case.n1), size=case.k)
    second = rng.dirichlet(np.full(case.n2, 0.3), size=case.k)
    linked = rng.dirichlet(np.full(case.n1 * case.n2, 0.1), size=case.k)
    given = first[:, :, None] * second[:, None, :]
    given = (1 - case.link) * given + case.link * linked.reshape(given.shape)
    joint = prior[:, None, None] * given
    values = rng.normal(size=(case.n2, case.d2))
    x1 = np.sum(joint, axis=(0, 2))
    psi = np.sum(joint, axis=0) @ values / x1[:, None]
    means = (np.sum(joint, axis=1) @ values / prior[:, None]).T
    return Joint(case, psi, means, (np.sum(joint, axis=2) / x1[None]).T, prior)


def _table_tolerance(run: Joint) -> float:
    """Roundings of psi and of A, as the pseudo-inverse passes them on: with its condition number.

    psi and the columns of A are means over n1 n2 entries at most.
    """
    values = np.linalg.svd(run.means, compute_uv=False)
    size = np.max(np.linalg.norm(run.psi, axis=1)) / values[-1]
    return run.case.n1 * run.case.n2 * EPS * size * values[0] / values[-1]


# --- Gaussians -----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Gaussian:
    """X1 = B1 Y + E1 and X2 = B2 Y + E2 + link C E1."""

    k: int = 5
    d1: int = 40
    d2: int = 10
    link: float = 0.0
    blind: bool = False
    """X2 does not depend on the last entry of Y."""
    psi_labels: tuple[int, ...] = (20, 50, 100, 200)
    raw_labels: tuple[int, ...] = (60, 100, 200)
    trials: int = 400


@dataclasses.dataclass(frozen=True)
class Covariances:
    """Covariances, and E[Y | X1] and E[X2 | X1] as maps of the whitened X1."""

    case: Gaussian
    s_11: np.ndarray
    s_21: np.ndarray
    s_1y: np.ndarray
    s_2y: np.ndarray
    s_yy: np.ndarray
    target: np.ndarray
    psi: np.ndarray
    key: jax.Array

    @property
    def noise(self) -> float:
        """The variance of Y given X1, in total."""
        return float(np.trace(self.s_yy) - np.sum(self.target**2))


def mix(key, case: Gaussian) -> Covariances:
    """Random loadings and a random covariance of Y."""
    rng = generator(key)
    b1 = rng.normal(size=(case.d1, case.k)) / np.sqrt(case.k)
    b2 = rng.normal(size=(case.d2, case.k))
    if case.blind:
        b2[:, -1] = 0
    c = rng.normal(size=(case.d2, case.d1)) / np.sqrt(case.d1)
    root = np.eye(case.k) + rng.normal(size=(case.k, case.k)) / 4
    # With independent entries of Y what X2 is blind to cannot be told from the rest.
    s_yy = np.eye(case.k) if case.blind else root @ root.T
    s_11 = b1 @ s_yy @ b1.T + np.eye(case.d1)
    s_21 = b2 @ s_yy @ b1.T + case.link * c
    half = np.linalg.cholesky(s_11)
    target, psi = (np.linalg.solve(half, s.T).T for s in (s_yy @ b1.T, s_21))
    return Covariances(case, s_11, s_21, b1 @ s_yy, b2 @ s_yy, s_yy, target, psi, key)


def _missed(run: Covariances) -> float:
    """E |E[Y | X1] - W psi|^2 for the best W: what the row space of psi leaves of the target."""
    return float(np.sum((run.target - _on_psi(run)) ** 2))


def _on_psi(run: Covariances) -> np.ndarray:
    rows = _span(run.psi)
    return run.target @ rows.T @ rows


def _span(matrix: np.ndarray) -> np.ndarray:
    """An orthonormal basis of the rows, those that are rounding excepted."""
    _, values, rows = np.linalg.svd(matrix, full_matrices=False)
    return rows[values > 1e-10 * values[0]]


def _missed_tolerance(run: Covariances) -> float:
    """A rounding of psi, over its least singular value, turns the row space by as much."""
    values = np.linalg.svd(run.psi, compute_uv=False)
    least = values[values > 1e-10 * values[0]][-1]
    turned = run.case.d1 * EPS * values[0] / least
    return float((turned * np.linalg.norm(run.target)) ** 2)


def _ci_error(run: Covariances) -> float:
    return pretext.ci_error(run.s_11, run.s_21, run.s_1y, run.s_2y, run.s_yy)


@dataclasses.dataclass(frozen=True)
class Fitted:
    """Mean excess errors, for psi and then for the raw input, and their standard errors."""

    covariances: Covariances
    excess: np.ndarray
    error: np.ndarray


def fit(key, case: Gaussian) -> Fitted:
    """Least squares on labels drawn afresh in every trial."""
    run = mix(key, case)
    rng = generator(jax.random.fold_in(key, 1))
    covariance = run.s_yy - run.target @ run.target.T
    spread = np.linalg.cholesky(covariance)
    found = []
    for rows, labels in ((_span(run.psi), case.psi_labels), (np.eye(case.d1), case.raw_labels)):
        for n in labels:
            u = rng.normal(size=(case.trials, n, case.d1))
            y = u @ run.target.T + rng.normal(size=(case.trials, n, case.k)) @ spread.T
            z = u @ rows.T
            turned = np.swapaxes(z, 1, 2)
            fitted = np.swapaxes(np.linalg.solve(turned @ z, turned @ y), 1, 2) @ rows
            excess = np.sum((fitted - run.target[None]) ** 2, axis=(1, 2))
            found.append((np.mean(excess), np.std(excess, ddof=1) / np.sqrt(case.trials)))
    excess, error = np.array(found).T
    return Fitted(run, excess, error)


def _excess_risks(run: Fitted) -> np.ndarray:
    case, noise = run.covariances.case, run.covariances.noise
    return np.array(
        [pretext.excess_risk(noise, case.k, n) for n in case.psi_labels]
        + [pretext.excess_risk(noise, case.d1, n) for n in case.raw_labels]
    )


CHECKS = (
    Check(
        name="pretext: labels are linear under conditional independence",
        source=f"{SOURCE}, Section 3",
        statement="P(Y | x1) = A^+ E[X2 | x1], A the columns E[X2 | Y = y]",
        data="tables of Y, X1, X2",
        symbols={
            "X1, X2, Y": "input, what is predicted of it, label; X2 in R^d2",
            "A": "[d2 k] columns E[X2 | Y = y]",
            "A^+": "pseudo-inverse",
        },
        predicted="from E[X2 | x1] and A, of the joint table",
        measured="P(Y | x1), of the same table",
        broken="X2 depends on X1 in a hundredth of all cases",
        cases={
            "quick": {f"k={k}": Table(k=k) for k in (2, 3, 5)},
            "paper": {f"k={k}": Table(k=k, n1=200, n2=100, d2=50) for k in (2, 5, 10, 20)},
        },
        draw=tabulate,
        assumptions={"A has rank k": lambda run: np.linalg.matrix_rank(run.means) == run.case.k},
        predict=lambda run: pretext.posterior_from_pretext(run.psi, run.means),
        measure=lambda run: run.posterior,
        relation="==",
        tolerance=_table_tolerance,
        # The prior, whatever x1 is.
        trivial=lambda run: np.abs(run.posterior - run.prior[None]),
        # X2 depends on X1 in a hundredth of all cases.
        control=Table(link=0.01),
    ),
    Check(
        name="pretext: what conditional dependence costs",
        source=f"{SOURCE}, Section 4, with a constant derived here",
        statement="min_W E|E[Y|X1] - W psi|^2 <= eps_CI^2 |S_YY S_2Y^+|^2",
        data="Gaussians, X2 linked to X1",
        symbols={
            "psi": "[d2] E[X2 | X1]",
            "eps_CI": "what Y leaves of the dependence of X2 on X1",
            "S_YY, S_2Y": "[k k], [d2 k] covariances",
        },
        predicted="from the covariances",
        measured="what the row space of psi leaves of E[Y | X1]",
        broken="X2 does not depend on one entry of Y",
        cases={
            "quick": {f"link {s:g}": Gaussian(link=s) for s in (0.0, 0.1, 0.3, 1.0, 10.0)},
            "paper": {
                f"k={k}, link {s:g}": Gaussian(k=k, d1=200, d2=30, link=s)
                for k in (5, 20)
                for s in (0.0, 0.1, 0.3, 1.0)
            },
        },
        draw=mix,
        assumptions={"d2 >= k": lambda run: run.case.d2 >= run.case.k},
        predict=lambda run: pretext.approximation_bound(_ci_error(run), run.s_2y, run.s_yy),
        measure=_missed,
        tolerance=_missed_tolerance,
        # W = 0 misses this.
        trivial=lambda run: np.sum(run.target**2),
        # X2 is independent of X1 given Y, but blind to one of its entries.
        control=Gaussian(blind=True),
    ),
    Check(
        name="pretext: labels that a linear head needs",
        source=f"{SOURCE}, Section 3, exact for Gaussians",
        statement="excess risk = sigma^2 p / (n - p - 1), p = k for psi, d1 for the input",
        data="Gaussians, n labels",
        symbols={
            "sigma^2": "variance of Y given X1",
            "p": "features: k of psi, or d1 of the input",
            "n": "labels",
        },
        predicted="from sigma^2, p and n",
        measured="mean excess error of least squares, over trials",
        broken="X2 is linked to X1: psi has more features than Y has entries",
        cases={
            "quick": {
                "k=5, d1=40": Gaussian(),
                "k=2, d1=40": Gaussian(k=2),
                "k=8, d1=20": Gaussian(k=8, d1=20),
            },
            "paper": {
                f"k={k}, d1=200": Gaussian(
                    k, 200, 30, psi_labels=(50, 100, 400), raw_labels=(300, 400), trials=200
                )
                for k in (2, 5, 20)
            },
        },
        draw=fit,
        assumptions={
            "more labels than features": lambda run: (
                min(run.covariances.case.psi_labels) > run.covariances.case.k + 3
                and min(run.covariances.case.raw_labels) > run.covariances.case.d1 + 3
            ),
        },
        predict=_excess_risks,
        measure=lambda run: run.excess,
        relation="==",
        tolerance=lambda run: 6 * run.error,  # standard errors over the trials
        # A guess that nothing is lost.
        trivial=_excess_risks,
        # psi has d2 features with a link, and none of them is Y.
        control=Gaussian(link=1.0),
    ),
)
