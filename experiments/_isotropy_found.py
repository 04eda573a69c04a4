"""What the parts of the study found: their numbers in short, and each claim with its verdict."""

from typing import Any

import numpy as np

from experiments import _isotropy_design as design
from experiments import _isotropy_hubs as hubs
from experiments import _isotropy_truncated as truncated
from experiments import _isotropy_words as words
from experiments._isotropy_config import Config, hub_dims, parts
from rlkit.train.records import Records, read_arrays

POINT = 0.01
"""A gain that counts, in recall and in correlation."""
CUT = 0.6
"""Share of the hubness that a reduction should take away."""
KEPT = 0.95
"""Share of the accuracy that a quarter of the dimensions should keep."""
ALIKE = 0.05
"""Difference of retained accuracy below which two choices of dimensions are alike."""


def summarize(records: Records) -> dict[str, Any]:
    """The numbers of every part that was run, and the table of claims."""
    config = Config(**records.config)
    makers = {
        "design": _design,
        "whitening": _whitening,
        "hubness": _hubness,
        "truncation": _truncation,
    }
    found = {
        part: makers[part](config, read_arrays(records.folder / f"{part}.npz"))
        for part in parts(config)
    }
    return found | {"claims": claims(found)}


# --- numbers -------------------------------------------------------------------------------------


def _design(config: Config, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    dim = config.dim
    bias = arrays["bias"].mean(axis=(0, 1))
    return {
        "scores": {
            name: design.verdicts(arrays[name].astype(float).mean(axis=0), dim)
            for name in design.SCORES
        },
        "isotropic": {name: arrays[name][:, 0, 0].mean() for name in design.SCORES},
        "bias": {
            "dim": design.BIAS_FACTOR * dim,
            "points": design.few(dim),
            "measured": bias,
            "expected": design.expected(design.few(dim), design.BIAS_FACTOR * dim),
        },
    }


def _whitening(config: Config, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """For each corpus, method and quantity the values [s]."""
    return _nested(arrays)


def _hubness(config: Config, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    gaussians = arrays.pop("gaussians")
    return {
        "gaussians": {str(dim): gaussians[:, i].tolist() for i, dim in enumerate(hub_dims(config))},
        "sources": _nested(arrays),
    }


def _nested(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, values in arrays.items():
        *path, last = name.split("/")
        inner = found
        for key in path:
            inner = inner.setdefault(key, {})
        inner[last] = values.tolist()
    return found


def _truncation(config: Config, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Means over seeds, [sizes] for each kind; `retained` is a share of all dimensions'."""
    found: dict[str, Any] = {}
    for name in dict.fromkeys(key.split("/")[0] for key in arrays):
        of = {"sizes": arrays[f"{name}/sizes"][0].tolist()}
        for quantity in truncated.QUANTITIES:
            if f"{name}/{quantity}" in arrays:
                values = arrays[f"{name}/{quantity}"].astype(float)
                of[quantity] = _by_kind(values)
                if quantity == "accuracy":
                    of["retained"] = _by_kind(_shares(values))
        found[name] = of
    return found


def _shares(values: np.ndarray) -> np.ndarray:
    """Of the last size's; NaN where all dimensions together find nothing."""
    whole = values[:, :, -1:]
    return np.where(whole > 0, values / np.where(whole > 0, whole, 1), np.nan)


def _by_kind(values: np.ndarray) -> dict[str, Any]:
    return dict(zip(truncated.KINDS, values.mean(axis=0).tolist(), strict=True))


# --- claims --------------------------------------------------------------------------------------


def claims(found: dict[str, Any]) -> list[dict[str, str]]:
    """Rows of part, claim, what its paper says, what is measured, and yes or no."""
    makers = {
        "design": _of_design,
        "whitening": _of_whitening,
        "hubness": _of_hubness,
        "truncation": _of_truncation,
    }
    keys = ("claim", "paper", "measured", "verdict")
    return [
        {"part": part} | dict(zip(keys, row, strict=True))
        for part, of in found.items()
        for row in makers[part](of)
    ]


Row = tuple[str, str, str, str]


def _verdict(holds) -> str:
    return "yes" if holds else "no"


def _all(conditions: dict[str, Any]) -> str:
    failing = [name for name, holds in conditions.items() if not holds]
    return "yes" if not failing else f"no: {', '.join(failing)}"


def _of_design(found: dict[str, Any]) -> list[Row]:
    passed = {
        name: sum(of["passed"] for of in tests.values()) for name, tests in found["scores"].items()
    }
    perfect = [name for name, count in passed.items() if count == len(design.TESTS)]
    bias = found["bias"]
    gap = np.max(np.abs(np.array(bias["measured"]) - np.array(bias["expected"])))
    first, last = (bias["measured"][i] for i in (0, -1))
    return [
        (
            "of these scores IsoScore alone passes all six tests",
            "yes (of those of 2022)",
            ", ".join(f"{design.SCORES[name]} {n}/6" for name, n in passed.items()),
            _verdict(perfect == ["isoscore"]),
        ),
        (
            "IsoScore of n points of an even Gaussian is (n - 2)/(n + d), to 0.02",
            "(derived here)",
            f"{first:.3f} for n = {bias['points'][0]} to {last:.3f} for n = {bias['points'][-1]} "
            f"in {bias['dim']}-d; off by {gap:.3f} at most",
            _verdict(gap <= 0.02),
        ),
    ]


def _gain(of: dict[str, Any], quantity: str) -> float:
    """Zipfian over uniform whitening, mean over seeds."""
    values = (of[method][quantity] for method in ("zipf_whiten", "uniform_whiten"))
    zipf, uniform = map(np.mean, values)
    return float(zipf - uniform)


def _gains(texts: dict[str, Any], quantity: str) -> dict[str, float]:
    return {
        name: _gain(of, quantity)
        for name, of in texts.items()
        if all(quantity in of[method] for method in ("zipf_whiten", "uniform_whiten"))
    }


def _listed(values: dict[str, float], form: str = "+.3f") -> str:
    return ", ".join(f"{name} {value:{form}}" for name, value in values.items())


def _of_whitening(found: dict[str, Any]) -> list[Row]:
    real = {name: of for name, of in found.items() if name != words.UNIFORM}
    least = {
        name: min(min(of["zipf_whiten"][k]) for k in ("first_zipf", "second_zipf"))
        for name, of in found.items()
    }
    rows: list[Row] = [
        (
            "under the words' frequencies Zipfian whitening makes both symmetries 1, to 0.001",
            "yes (an identity)",
            f"at least {min(least.values()):.5f}",
            _all({name: value >= 1 - 1e-3 for name, value in least.items()}),
        )
    ]
    recall = _gains(real, "recall")
    if recall:
        rows.append(
            (
                f"it finds a passage's other half better than uniform whitening, by {POINT} or "
                "more in recall@1",
                "(not measured there)",
                _listed(recall, "+.4f"),
                _all({name: gain >= POINT for name, gain in recall.items()}),
            )
        )
    for quantity, what, paper in (
        ("sts", "sentences", "STS-B 0.669 for 0.522 (GloVe)"),
        ("similarity", "words", "(sentences are its task)"),
    ):
        if gains := _gains(real, quantity):
            rows.append(
                (
                    f"it goes with people's judgement of {what} better, by {POINT} or more in "
                    "Spearman",
                    paper,
                    _listed(gains),
                    _all({name: gain >= POINT for name, gain in gains.items()}),
                )
            )
    if words.UNIFORM in found:
        gain = _gain(found[words.UNIFORM], "recall")
        rows.append(
            (
                f"control: with equal frequencies it gains nothing (less than {POINT})",
                "(as it must)",
                f"{gain:+.4f}",
                _verdict(abs(gain) < POINT),
            )
        )
    norms = {
        name: [float(np.mean(of[m]["norm"])) for m in ("uniform_whiten", "zipf_whiten")]
        for name, of in real.items()
    }
    rows.append(
        (
            "squared norms go with -log p, and more so than after uniform whitening",
            "yes",
            ", ".join(f"{name} {zipf:.2f} for {uniform:.2f}"
                      for name, (uniform, zipf) in norms.items()),
            _all({name: zipf > max(uniform, 0) for name, (uniform, zipf) in norms.items()}),
        )
    )  # fmt: skip
    return rows


def cut(of: dict[str, Any], method: str) -> float:
    """Share of the skewness that a method takes away, of means over seeds."""
    before, after = (np.mean(of[m]["skewness"]) for m in ("none", method))
    return float(1 - after / before) if before > 0 else float("nan")


def _of_hubness(found: dict[str, Any]) -> list[Row]:
    means = {dim: np.mean(values) for dim, values in found["gaussians"].items()}
    gaussian, *others = found["sources"]
    cuts = {m: cut(found["sources"][gaussian], m) for m in hubs.REDUCTIONS}
    rows: list[Row] = [
        (
            "hubs of Gaussians grow with the dimension",
            "yes (Radovanović et al. 2010)",
            "skewness " + ", ".join(f"{v:.2f} in {dim}-d" for dim, v in means.items()),
            _verdict(all(np.diff(list(means.values())) > 0)),
        ),
        (
            f"each reduction takes {CUT:.0%} of the hubness of {gaussian.replace(', ', 's of ')}",
            "clearly less",
            _listed({hubs.METHODS[m]: value for m, value in cuts.items()}, ".0%"),
            _all({hubs.METHODS[m]: value >= CUT for m, value in cuts.items()}),
        ),
    ]
    both = {name: cut(found["sources"][name], "both") for name in others}
    rows.append(
        (
            f"standardising and mutual proximity take {CUT:.0%} of the embeddings' hubness",
            "about 75 %, of one encoder with many hubs",
            _listed(both, ".0%"),
            _all({name: value >= CUT for name, value in both.items()}),
        )
    )
    best = {
        name: max(hubs.REDUCTIONS, key=lambda m, of=found["sources"][name]: cut(of, m))
        for name in others
    }
    taken = {name: cut(found["sources"][name], method) for name, method in best.items()}
    rows.append(
        (
            f"the best of them takes {CUT:.0%} of it",
            "(the best varies)",
            ", ".join(f"{name} {hubs.METHODS[best[name]]} {taken[name]:.0%}" for name in best),
            _all({name: value >= CUT for name, value in taken.items()}),
        )
    )
    errors = {
        name: [float(np.mean(found["sources"][name][m]["error"])) for m in ("none", "both")]
        for name in others
        if "error" in found["sources"][name]["none"]
    }
    if errors:
        rows.append(
            (
                "standardising and mutual proximity lower the error of nearest neighbours",
                "by about 9 %, of the same",
                ", ".join(
                    f"{name} {before:.3f} to {after:.3f}"
                    for name, (before, after) in errors.items()
                ),
                _all({name: after < before for name, (before, after) in errors.items()}),
            )
        )
    return rows


def _of_truncation(found: dict[str, Any]) -> list[Row]:
    rows: list[Row] = []
    judged = {name: of for name, of in found.items() if "retained" in of}
    if judged:
        quarter = {name: _at(of, "retained", "first", 4) for name, of in judged.items()}
        apart = {name: _apart(of) for name, of in judged.items()}
        rows += [
            (
                f"the first quarter of the dimensions keeps {KEPT:.0%} of the accuracy",
                "costs little",
                _listed(quarter, ".1%"),
                _all({name: value >= KEPT for name, value in quarter.items()}),
            ),
            (
                f"random dimensions are as good as the first, to {ALIKE} of it, from d/8 on",
                "(not claimed)",
                "apart by " + _listed(apart, ".3f"),
                _all({name: value <= ALIKE for name, value in apart.items()}),
            ),
        ]
    if {"contrastive", "labels"} <= set(found):
        pair = [found[name] for name in ("labels", "contrastive")]
        for what, value in (
            ("with labels keeps more of its accuracy in d/16 dimensions",
             [_at(of, "retained", "first", 16) for of in pair]),
            ("with labels has the lower intrinsic dimension (TwoNN)",
             [-_at(of, "two_nn", "first", 1) for of in pair]),
            ("with labels has the lower IsoScore",
             [-_at(of, "isoscore", "first", 1) for of in pair]),
        ):  # fmt: skip
            ours, theirs = map(abs, value)
            rows.append(
                (
                    f"the encoder {what} than the contrastive one",
                    "yes, classification against retrieval prompts",
                    f"{ours:.3f} for {theirs:.3f}",
                    _verdict(value[0] > value[1]),
                )
            )
    return rows


def _at(of: dict[str, Any], quantity: str, kind: str, divided: int) -> float:
    """The value at the size nearest above d / divided."""
    sizes = of["sizes"]
    wanted = sizes[-1] / divided
    return of[quantity][kind][next(i for i, size in enumerate(sizes) if size >= wanted)]


def _apart(of: dict[str, Any]) -> float:
    sizes = np.array(of["sizes"])
    first, drawn = (np.array(of["retained"][kind]) for kind in ("first", "random"))
    return float(np.max(np.abs(first - drawn)[sizes >= sizes[-1] / 8]))


def number(value: float | None, digits: int = 2) -> str:
    """Rounded; JSON has no NaN, only null."""
    return "" if value is None or not np.isfinite(value) else f"{value:.{digits}f}"
