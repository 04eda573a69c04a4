"""What the searches say: overlaps, retrieval by scorer, and whether variances tell of failure."""

from typing import Any

import numpy as np

from experiments._distributional_config import Config, dims_of, tops_of
from experiments._distributional_exact import SEARCHES
from experiments._distributional_trained import DEPTH, SCORERS
from experiments._numbers import bounds, mean, number, spearman
from rlkit.train.records import Records, read_arrays

PREDICTORS = {
    "Gaussian/variance": ("norm of the variances", "KL"),
    "Gaussian/volume": ("log-volume", "KL"),
    "both ways/variance": ("norm of the variances, both ways", "KL, both ways"),
    "both ways/volume": ("log-volume, both ways", "KL, both ways"),
    "dot/norm": ("minus the vector's norm", "dot"),
    "wide dot/norm": ("minus the wide vector's norm", "wide dot"),
    "area": ("share covered (not known to the model)", "KL"),
}
"""Numbers of a query, each the larger the less sure it should be, and the search it is held
against."""

RESAMPLES = 200

CLOSE = 1e-5
"""Two documents count as equally near in single precision where divergences differ by less, as a
share."""


def queries(records: Records) -> dict[str, np.ndarray]:
    """What is known of every query at the end: ranks and predictors [s q], documents and areas [q].

    A search's ranks are `rank/<scorer>`.
    """
    last = read_arrays(records.folder / "arrays" / f"{records.steps[-1]:08d}.npz")
    ranks = last.pop("ranks")
    of_each = {f"rank/{scorer}": ranks[:, i, :, 0] for i, scorer in enumerate(SCORERS)}
    return of_each | last | read_arrays(records.folder / "queries.npz")


def signed(known: dict[str, np.ndarray], predictor: str) -> np.ndarray:
    """One of `PREDICTORS` [s q]: norms, which are to be large where a query is sure, negated."""
    seeds = len(known["rank/KL"])
    values = np.broadcast_to(known[predictor], (seeds, known["area"].size))
    return -values if predictor.endswith("/norm") else values


def prediction(known: dict[str, np.ndarray], predictor: str, *, seed: int = 0) -> dict[str, Any]:
    """Correlation of a predictor with the reciprocal rank: mean over seeds, and 95 % interval.

    Below 0 where queries that it calls unsure are answered worse. The interval is that of
    bootstrap resamples of the documents, each with all of its queries, seeds kept together.
    """
    rng = np.random.default_rng(seed)
    u = signed(known, predictor)
    reciprocal = 1 / known[f"rank/{PREDICTORS[predictor][1]}"]
    documents = np.unique(known["document"])
    of_each = known["document"].reshape(len(documents), -1)
    at = np.arange(u.shape[1]).reshape(of_each.shape)
    draws = rng.integers(len(documents), size=(RESAMPLES, len(documents)))
    means = []
    for drawn in draws:
        chosen = at[drawn].ravel()
        means.append(mean(spearman(u[:, chosen], reciprocal[:, chosen])))
    means = np.array(means)[np.isfinite(means)]
    return {
        "spearman": mean(spearman(u, reciprocal)),
        "interval": np.percentile(means, [2.5, 97.5]).tolist() if means.size else [np.nan] * 2,
        "with_area": mean(spearman(u, np.broadcast_to(known["area"], u.shape))),
    }


def summarize(records: Records) -> dict[str, Any]:
    """Overlaps by dimension, MRR and nDCG [s] by scorer, correlations, and the claims."""
    config = Config(**records.config)
    overlaps = read_arrays(records.folder / "random.npz")
    known = queries(records)
    summary = {
        "random": {
            "dims": dims_of(config),
            "tops": tops_of(config),
            "finite": overlaps["printed/finite"].mean(axis=0),
            "overlap": {name: overlaps[f"{name}/overlap"].mean(axis=0) for name in SEARCHES},
            "least": {name: overlaps[f"{name}/overlap"].min() for name in SEARCHES},
            "same": {name: overlaps[f"{name}/same"].mean(axis=0) for name in SEARCHES},
            "lost": {name: overlaps[f"{name}/lost"].max(axis=0) for name in SEARCHES},
        },
        "retrieval": {
            scorer: {what: records.scalar(f"{scorer}/{what}")[-1] for what in ("mrr", "ndcg")}
            for scorer in SCORERS
        },
        "prediction": {name: prediction(known, name) for name in PREDICTORS},
    }
    return summary | {"claims": claims(config, summary)}


def claims(config: Config, summary: dict[str, Any]) -> list[dict[str, str]]:
    """Claim, what its paper says, what is found here, and yes or no."""

    def row(claim: str, paper: str, measured: str, holds: bool | None) -> dict[str, str]:
        verdict = "undecided" if holds is None else "yes" if holds else "no"
        return {"claim": claim, "paper": paper, "measured": measured, "verdict": verdict}

    random, found = summary["random"], summary["retrieval"]
    single, printed = (
        {k: random[k][name] for k in ("least", "overlap", "lost")}
        for name in ("exact, float32", "printed, float32")
    )
    top = random["tops"][-1]
    last = np.asarray(printed["overlap"])[:, -1]
    dims = random["dims"]
    rows = [
        row(
            f"an index of inner products finds the {top} documents of least divergence",
            "yes (an identity)",
            f"least overlap {random['least']['exact, float64']:.4g} in float64, "
            f"{single['least']:.4g} in float32 (dimensions {dims[0]} to {dims[-1]}); what float32 "
            f"takes in error is farther by {np.max(single['lost']):.1e}",
            random["least"]["exact, float64"] == 1 and np.max(single["lost"]) < CLOSE,
        ),
        row(
            f"so it does with the vectors as printed (overlap of the first {top})",
            "given as the divergence",
            f"{last.min():.2f} to {last.max():.2f} over dimensions; of the first "
            f"{random['tops'][0]}: {np.asarray(printed['overlap'])[:, 0].min():.2f} and more",
            printed["least"] == 1,
        ),
    ]
    numbers = 3 * config.dim + 1
    for claim, paper, other in (
        (
            f"Gaussians retrieve better than vectors of as many numbers ({numbers})",
            "MRR@10 .393 to .382 (CLDRD), .344 (TAS-B), MS MARCO",
            "wide dot",
        ),
        (
            f"... than vectors of as many dimensions ({config.dim})",
            "not asked",
            "dot",
        ),
        ("... than their own means by dot product", "not asked", "its means, dot"),
        ("... than their own means by distance", "not asked", "its means, distance"),
        ("... than means trained with all variances 1", "not asked", "distance"),
        ("... than the printed formula on the same Gaussians", "not asked", "KL as printed"),
    ):
        ours, theirs = (np.array(found[k]["mrr"], float) for k in ("KL", other))
        rows.append(
            row(
                claim,
                paper,
                f"MRR@{DEPTH} {ours.mean():.3f} to {theirs.mean():.3f}, "
                f"better in {np.sum(ours > theirs)} of {len(ours)} seeds",
                _consistent(ours - theirs),
            )
        )
    for predictor, claim, paper, sign in (
        (
            "Gaussian/variance",
            "the norm of a query's variances goes with how well it is answered",
            "yes (size and sign unverified)",
            0,
        ),
        (
            "Gaussian/variance",
            "... and a large one means unsure: answered worse",
            "what a variance is for",
            -1,
        ),
        ("both ways/variance", "... if the loss sees the query's own terms", "not asked", -1),
    ):
        of = summary["prediction"][predictor]
        low, high = of["interval"]
        known = np.sign(low) if low * high > 0 else None
        rows.append(
            row(
                claim,
                paper,
                f"Spearman {number(of['spearman'])} {bounds(of['interval'])} with the "
                f"reciprocal rank, {number(of['with_area'])} with the share covered",
                None if known is None else sign in (0, known),
            )
        )
    return rows


def _consistent(difference: np.ndarray) -> bool | None:
    """Above 0 in all seeds, below or equal in all, or undecided."""
    return True if np.all(difference > 0) else False if np.all(difference <= 0) else None
