"""What the uncertainties know: R-AUROC with intervals, chance, and the claims."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from experiments._uncertainty_config import Config, methods_of, tests_of
from experiments._uncertainty_models import DISTRIBUTIONS, network_rows
from rlkit.metrics.uncertainty import auroc, risk_coverage
from rlkit.train.records import Records

RESAMPLES = 200
CHANCE = 0.02
"""Within which a random uncertainty's R-AUROC is to be at 0.5."""

PROBABILITIES = ("entropy", "dropout", "ensemble")
"""What is read from the probabilities of the trained classes."""

COVERAGES = np.linspace(0.05, 1, 39)
"""At which the share of wrong neighbours is reported."""

_areas = jax.jit(jax.vmap(auroc))
_risks = jax.jit(jax.vmap(lambda u, wrong: risk_coverage(u, wrong).risk))


def areas(uncertainty: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """AUROC along the last axis of [... n] each; NaN where all are right, or all wrong."""
    *batch, n = uncertainty.shape
    found = _areas(jnp.asarray(uncertainty.reshape(-1, n)), jnp.asarray(wrong.reshape(-1, n)))
    return np.asarray(found, float).reshape(batch)


def measure(config: Config, uncertainty: np.ndarray, wrong: np.ndarray) -> dict[str, Any]:
    """One test at the end, from the uncertainties and their networks' errors [s m n].

    `interval` [m 2] and `differences` [m m 2] hold 95 % of the bootstrap resamples of the images,
    seeds kept together and their values averaged: of R-AUROC and of its pairwise differences.
    """
    value = areas(uncertainty, wrong)
    n = uncertainty.shape[-1]
    rng = np.random.default_rng(config.seed)
    draws = rng.integers(n, size=(RESAMPLES, n))
    again = np.stack([_mean(areas(uncertainty[..., i], wrong[..., i]), 0) for i in draws])
    apart = again[:, :, None] - again[:, None, :]
    # Only the order counts: where neighbours of the first network are wrong, against noise.
    noise = rng.random((len(value), config.controls, n))
    control = areas(noise, np.broadcast_to(wrong[:, :1], noise.shape))
    risk = _risks(*(jnp.asarray(x, jnp.float32).reshape(-1, n) for x in (uncertainty, wrong)))
    at = np.clip(np.ceil(COVERAGES * n).astype(int) - 1, 0, n - 1)
    return {
        "r_auroc": value.T,
        "recall": 1 - wrong.mean(axis=-1).T,
        "interval": _percentiles(again).T,
        "differences": np.moveaxis(_percentiles(apart), 0, -1),
        "risk": np.asarray(risk).reshape(*value.shape, n)[..., at].mean(axis=0),
        "control": _mean(control, (0, 1)),
        "control_range": _percentiles(control.reshape(-1)),
        "images": n,
    }


def _percentiles(values: np.ndarray) -> np.ndarray:
    """The 2.5th and the 97.5th of the first axis [2 ...], of what is defined."""
    if not np.isfinite(values).any():
        return np.full((2, *values.shape[1:]), np.nan)
    return np.nanpercentile(values, [2.5, 97.5], axis=0)


def _mean(values: np.ndarray, axis) -> Any:
    """Of what is defined, NaN where nothing is."""
    there = np.isfinite(values)
    count = there.sum(axis=axis)
    total = np.where(there, values, 0).sum(axis=axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)[()]


def summarize(records: Records) -> dict[str, Any]:
    """By test: R-AUROC and R@1 [m s] with intervals, curves over time [T m s], and the claims.

    `untrained` is R@1 before the first step [m], a mean over seeds.
    """
    config = Config(**records.config)
    rows = network_rows(config)
    tests, curves, untrained = {}, {}, {}
    for name in tests_of(config):
        uncertainty = records.array(f"uncertainty/{name}")
        wrong = records.array(f"wrong/{name}")[:, :, rows]
        tests[name] = measure(config, uncertainty[-1], wrong[-1])
        curves[name] = np.moveaxis(areas(uncertainty, wrong), 1, 2)
        untrained[name] = 1 - wrong[0].mean(axis=(0, 2))
    found = {"methods": methods_of(config), "tests": tests, "curves": curves}
    found |= {"untrained": untrained}
    return found | {"claims": claims(config, found)}


def claims(config: Config, found: dict[str, Any]) -> list[dict[str, str]]:
    """Claim, what its paper says, what is found here, and yes, no or undecided."""

    def row(claim: str, paper: str, measured: str, holds: bool | None) -> dict[str, str]:
        verdict = "undecided" if holds is None else "yes" if holds else "no"
        return {"claim": claim, "paper": paper, "measured": measured, "verdict": verdict}

    methods, tests = list(methods_of(config)), found["tests"]
    of = tests["held-out"]
    value = {m: _mean(v, 0) for m, v in zip(methods, of["r_auroc"], strict=True)}
    recall = {m: np.mean(v) for m, v in zip(methods, of["recall"], strict=True)}
    interval = dict(zip(methods, np.asarray(of["interval"]), strict=True))
    above = [m for m in methods if interval[m][0] > 0.5]
    off = {name: abs(test["control"] - 0.5) for name, test in tests.items()}
    known = [name for name in off if np.isfinite(off[name])]
    rows = [
        row(
            f"control: a random uncertainty has an R-AUROC of 0.5 ± {CHANCE}",
            "chance is 0.5",
            ", ".join(f"{name} {number(tests[name]['control'])}" for name in tests),
            max(off[name] for name in known) <= CHANCE if known else None,
        ),
        row(
            "most uncertainties know more than chance of held-out classes (interval above 0.5)",
            "mostly .55 to .65 (unverified)",
            f"{len(above)} of {len(methods)}: {number(min(value.values()), 2)} to "
            f"{number(max(value.values()), 2)}",
            len(above) > len(methods) / 2,
        ),
    ]

    def compared(first: str, second: str):
        low, high = np.asarray(of["differences"])[methods.index(first), methods.index(second)]
        text = (
            f"{first} {number(value[first])}, {second} {number(value[second])}, difference "
            f"[{number(low)}, {number(high)}]"
        )
        return text, True if low > 0 else False if high < 0 else None

    if {"loss_prediction", "entropy"} <= set(methods):
        rows.append(
            row(
                "predicting the loss beats the entropy of trained classes on held-out ones",
                "yes",
                *compared("loss_prediction", "entropy"),
            )
        )
    ours = [m for m in DISTRIBUTIONS if m in methods]
    theirs = [m for m in PROBABILITIES if m in methods]
    if ours and theirs:
        best, other = (max(group, key=value.get) for group in (ours, theirs))
        rows.append(
            row(
                "the best distribution of embeddings beats the best of class probabilities",
                "yes",
                *compared(best, other),
            )
        )
    if len(methods) > 1:
        order = [value[m] for m in methods], [recall[m] for m in methods]
        rho = spearman(*order)
        first, second = max(methods, key=value.get), max(methods, key=recall.get)
        rows.append(
            row(
                "the best R@1 does not come with the best R-AUROC",
                "better R@1 does not imply better R-AUROC",
                f"R@1: {second}, R-AUROC: {first}; Spearman over methods {number(rho, 2)}",
                recall[first] < recall[second],
            )
        )
        for name in list(tests)[2:]:
            there = [_mean(v, 0) for v in tests[name]["r_auroc"]]
            rho = spearman(order[0], there)
            rows.append(
                row(
                    f"who is ahead on held-out classes is ahead on: {name}",
                    "not asked",
                    f"Spearman over methods {number(rho, 2)}",
                    None if not np.isfinite(rho) or 0 <= rho < 0.5 else rho > 0,
                )
            )
    return rows


def spearman(x, y) -> float:
    """Rank correlation; NaN without spread."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    if np.ptp(x) == 0 or np.ptp(y) == 0 or not np.isfinite(x + y).all():
        return float("nan")
    return float(stats.spearmanr(x, y).statistic)


def number(value: float | None, digits: int = 3) -> str:
    """Rounded; JSON has no NaN, only null."""
    return "undefined" if value is None or not np.isfinite(value) else f"{value:.{digits}f}"
