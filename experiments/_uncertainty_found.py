"""What the uncertainties know: R-AUROC with intervals, chance, and the claims."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments._numbers import bounds, mean, number, spearman
from experiments._uncertainty_config import CHANGED, Config, methods_of, tests_of
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


def measure(
    config: Config, uncertainty: np.ndarray, wrong: np.ndarray, *, stream: int = 0
) -> dict[str, Any]:
    """One test at the end, from the uncertainties and their networks' errors [s m n].

    `interval` [m 2] and `differences` [m m 2] hold 95 % of the bootstrap resamples of the images,
    seeds kept together and their values averaged: of R-AUROC and of its pairwise differences. The
    resamples themselves are `again/r_auroc` and `again/recall` [r m]; tests of the same images in
    the same order have the same ones where their `stream` is the same.
    """
    value = areas(uncertainty, wrong)
    n = uncertainty.shape[-1]
    rng = np.random.default_rng([config.seed, stream])
    draws = rng.integers(n, size=(RESAMPLES, n))
    again = np.stack([mean(areas(uncertainty[..., i], wrong[..., i]), 0) for i in draws])
    right = 1 - wrong.mean(axis=0)
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
        "control": mean(control, (0, 1)),
        "control_range": _percentiles(control.reshape(-1)),
        "images": n,
        "again/r_auroc": again,
        "again/recall": np.stack([right[:, i].mean(axis=1) for i in draws]),
    }


def _stream(config: Config, test: str) -> int:
    """Which resamples a test has: those of held-out images where it only changes these."""
    return 0 if test in ("held-out", *CHANGED) else 1 + tests_of(config).index(test)


def _percentiles(values: np.ndarray) -> np.ndarray:
    """The 2.5th and the 97.5th of the first axis [2 ...], of what is defined."""
    if not np.isfinite(values).any():
        return np.full((2, *values.shape[1:]), np.nan)
    return np.nanpercentile(values, [2.5, 97.5], axis=0)


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
        tests[name] = measure(config, uncertainty[-1], wrong[-1], stream=_stream(config, name))
        curves[name] = np.moveaxis(areas(uncertainty, wrong), 1, 2)
        untrained[name] = 1 - wrong[0].mean(axis=(0, 2))
    found = {"methods": methods_of(config), "tests": tests, "curves": curves}
    found |= {"untrained": untrained, "claims": claims(config, found)}
    for of in tests.values():  # which were only needed for the claims
        del of["again/r_auroc"], of["again/recall"]
    return found


def claims(config: Config, found: dict[str, Any]) -> list[dict[str, str]]:
    """Claim, what its paper says, what is found here, and yes, no or undecided.

    Where the best of some methods is held against the best of others, both are chosen anew in each
    resample of the images: compared as if they had been known before, they would win too often.
    """

    def row(claim: str, paper: str, measured: str, holds: bool | None) -> dict[str, str]:
        verdict = "undecided" if holds is None else "yes" if holds else "no"
        return {"claim": claim, "paper": paper, "measured": measured, "verdict": verdict}

    methods, tests = list(methods_of(config)), found["tests"]
    of = tests["held-out"]
    value = {m: mean(v, 0) for m, v in zip(methods, of["r_auroc"], strict=True)}
    recall = {m: np.mean(v) for m, v in zip(methods, of["recall"], strict=True)}
    interval = dict(zip(methods, np.asarray(of["interval"]), strict=True))
    above = [m for m in methods if interval[m][0] > 0.5]
    off = {name: abs(test["control"] - 0.5) for name, test in tests.items()}
    known = [name for name in off if np.isfinite(off[name])]
    rows = [
        row(
            f"control: a random uncertainty has an R-AUROC of 0.5 ± {CHANCE}",
            "chance is 0.5",
            ", ".join(f"{name} {number(tests[name]['control'], 3)}" for name in tests),
            max(off[name] for name in known) <= CHANCE if known else None,
        ),
        row(
            "most uncertainties know more than chance of held-out classes (interval above 0.5)",
            "mostly .55 to .65 (unverified)",
            f"{len(above)} of {len(methods)}: {number(min(value.values()))} to "
            f"{number(max(value.values()))}",
            len(above) > len(methods) / 2,
        ),
    ]

    again = of["again/r_auroc"]

    def difference(first: str, second: str) -> np.ndarray:
        return np.asarray(of["differences"])[methods.index(first), methods.index(second)]

    def compared(first: str, second: str, apart: np.ndarray):
        both = ", ".join(f"{name} {number(value[name], 3)}" for name in (first, second))
        return f"{both}, difference {bounds(apart, 3)}", _sign(apart)

    if {"loss_prediction", "entropy"} <= set(methods):
        pair = "loss_prediction", "entropy"
        rows.append(
            row(
                "predicting the loss beats the entropy of trained classes on held-out ones",
                "yes",
                *compared(*pair, difference(*pair)),
            )
        )
    ours = [m for m in DISTRIBUTIONS if m in methods]
    theirs = [m for m in PROBABILITIES if m in methods]
    if ours and theirs:
        best, other = (max(group, key=value.get) for group in (ours, theirs))
        columns = ([methods.index(m) for m in group] for group in (ours, theirs))
        apart = np.subtract(*(again[:, group].max(axis=1) for group in columns))
        rows.append(
            row(
                "the best distribution of embeddings beats the best of class probabilities",
                "yes",
                *compared(best, other, _percentiles(apart)),
            )
        )
    if len(methods) > 1:
        order = [value[m] for m in methods], [recall[m] for m in methods]
        first = max(methods, key=value.get)
        # Methods of one network have one R@1: the best of these.
        second = max(methods, key=lambda m: (recall[m], value[m]))
        apart = difference(first, second)
        rho, spread = spearman(*order), _percentiles(spearman(again, of["again/recall"]))
        rows.append(
            row(
                "the best R@1 does not come with the best R-AUROC",
                "better R@1 does not imply better R-AUROC",
                f"R@1: {second}, R-AUROC: {first}, ahead by {bounds(apart, 3)}; Spearman over "
                f"methods {number(rho)} {bounds(spread)}",
                True if apart[0] > 0 else False if first == second and apart[1] == 0 else None,
            )
        )
        for name in list(tests)[2:]:
            rho = spearman(order[0], [mean(v, 0) for v in tests[name]["r_auroc"]])
            # Resample by resample; where it is the same images that are changed, of the same ones.
            spread = _percentiles(spearman(again, tests[name]["again/r_auroc"]))
            rows.append(
                row(
                    f"who is ahead on held-out classes is ahead on: {name}",
                    "not asked",
                    f"Spearman over methods {number(rho)} {bounds(spread)}",
                    _sign(spread),
                )
            )
    return rows


def _sign(interval: np.ndarray) -> bool | None:
    """Whether it is above 0, or below, or holds it: undecided, as what is undefined."""
    low, high = interval
    return True if low > 0 else False if high < 0 else None
