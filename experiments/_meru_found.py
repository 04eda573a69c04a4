"""What the two models say: retrieval, distances from the root, the ways to it, and the claims."""

from typing import Any

import jax
import numpy as np
from scipy import stats

from experiments._meru_config import Config, dims, programs
from experiments._meru_data import Problem, prompts
from experiments._meru_models import CURVATURES
from rlkit.data import scenes
from rlkit.train.records import Records, read_arrays

RECALLS = ("image to text @1", "image to text @5", "text to image @1", "text to image @5")
ZERO_SHOT = ("number", "digit", "colour")
VARIANTS = ("as trained", "temperature", "radius", "both")
"""What is learned after training, for the radius scaling."""

ENOUGH = 2.0
"""Points of recall by which MERU may be behind CLIP."""

RESAMPLES = 200
SHOWN = 3
"""Ways to the root that are printed."""


def spearman(levels: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Rank correlation along the last axis, equal values sharing ranks; NaN without spread."""
    a, b = (stats.rankdata(v, axis=-1) for v in (levels, values))
    a, b = (v - v.mean(axis=-1, keepdims=True) for v in (a, b))
    size = np.sqrt(np.sum(a * a, axis=-1) * np.sum(b * b, axis=-1))
    return np.where(size > 0, np.sum(a * b, axis=-1) / np.where(size > 0, size, 1), np.nan)


def generality(radii: np.ndarray, *, seed: int = 0) -> dict[str, Any]:
    """How distances from the root [s 6 n] go with the captions' levels: the mean over seeds.

    The interval holds 95 % of resamples of the scenes, whose captions stay together.
    """
    s, k, n = radii.shape
    levels = np.repeat(np.arange(k), n)
    rng = np.random.default_rng(seed)
    draws = rng.integers(n, size=(RESAMPLES, n))
    again = [spearman(levels[None], one[:, draws].transpose(1, 0, 2).reshape(-1, k * n))
             for one in radii]  # fmt: skip
    return {
        "spearman": float(np.mean(spearman(levels, radii.reshape(s, -1)))),
        "interval": np.percentile(np.mean(again, axis=0), [2.5, 97.5]).tolist(),
    }


def nearer(radii: np.ndarray, tokens: np.ndarray) -> float:
    """Share of (caption, next more specific one of the same scene) with the general one nearer.

    Of radii [s 6 n] and tokens [6 n t]; pairs with the same words do not count.
    """
    differs = np.any(tokens[1:] != tokens[:-1], axis=-1)
    return float(np.mean((radii[:, :-1] < radii[:, 1:])[:, differs]))


def ways(nearest: np.ndarray, data: Problem) -> dict[str, Any]:
    """What is met on the ways [s e k] from images to the root, as shares of stops and scenes.

    `true`: captions that are true of the scene, the root aside. `rungs`: different true captions
    that a way meets. `level`: the mean level at each stop (the root as -1).
    """
    there = nearest < len(data.candidate_levels)
    chosen = np.where(there, nearest, 0)
    of = np.asarray(data.candidate_scenes)[chosen]
    level = np.asarray(data.candidate_levels)[chosen]
    e = nearest.shape[1]
    everything = jax.tree.map(np.asarray, data.attributes)
    scene = jax.tree.map(lambda x: x[None, :e, None], everything)
    caption = jax.tree.map(lambda x: x[of], everything)
    true = np.asarray(_true(scene, caption, level)) & there
    rungs = [len(set(way[ok].tolist())) for way, ok in zip(_rows(chosen), _rows(true), strict=True)]
    return {
        "true": float(np.sum(true) / max(np.sum(there), 1)),
        "rungs": float(np.mean(rungs)),
        "level": np.mean(np.where(there, level, -1), axis=(0, 1)),
    }


@jax.jit
def _true(scene, caption, level):
    return scenes.entails(scene, scenes.LEVELS.index("everything"), caption, level)


def _rows(x: np.ndarray) -> np.ndarray:
    return x.reshape(-1, x.shape[-1])


def described(nearest: np.ndarray, data: Problem) -> list[list[str]]:
    """The different captions in the order in which each way [e k] meets them."""
    tokens = np.asarray(data.candidates)
    told = []
    for way in nearest:
        texts = [scenes.words(tokens[i]) if i < len(tokens) else "[root]" for i in way]
        told.append([t for i, t in enumerate(texts) if i == 0 or t != texts[i - 1]])
    return told


# --- all of it -----------------------------------------------------------------------------------


def summarize(records: Records, data: Problem) -> dict[str, Any]:
    """The last value of everything, by dimension and kind, with what is made of the geography."""
    config = Config(**records.config)
    radii = read_arrays(records.folder / "radii.npz")["radii"].astype(float)
    nearest = read_arrays(records.folder / "ways.npz")["nearest"]
    scaled = read_arrays(records.folder / "scaled.npz")
    curves = {
        name: records.array(name).astype(float)
        for name in ("contrast", "entailment", "recall", "zero_shot", "curvature", "scale")
    }
    tokens = np.asarray(data.tokens)
    models: dict[str, Any] = {}
    for i, (kind, dim) in enumerate(programs(config)):
        last = {name: curve[-1, :, i] for name, curve in curves.items()}
        of: dict[str, Any] = {
            "recall": last["recall"].mean(axis=0),
            "recall_at_1": 100 * last["recall"][:, [0, 2]].mean(axis=1),
            "zero_shot": last["zero_shot"].mean(axis=0),
            "contrast": last["contrast"].mean(),
            "text_radius": radii[:, i, :-1].mean(axis=(1, 2)),
            "image_radius": radii[:, i, -1].mean(axis=1),
            "radius_by_level": radii[:, i].mean(axis=(0, 2)),
            "pair_nearer": float(np.mean(radii[:, i, -2] < radii[:, i, -1])),
            "generality": generality(radii[:, i, :-1]),
            "nearer": nearer(radii[:, i, :-1], tokens),
            "ways": ways(nearest[:, i], data),
            "told": described(nearest[0, i, :SHOWN], data),
        }
        if kind == "meru":
            where = dims(config).index(dim)
            of |= {
                "curvature": last["curvature"],
                "entailment": [curves["entailment"][t, :, i].mean() for t in (0, -1)],
                "scaled": {
                    variant: {name: scaled[name][:, where, v].mean(axis=0) for name in scaled}
                    for v, variant in enumerate(VARIANTS)
                },
            }
        models.setdefault(str(dim), {})[kind] = of
    truth = np.asarray(data.tokens[-1, :SHOWN])
    asked = prompts(config)
    return {
        "models": models,
        "scenes": [scenes.words(row) for row in truth],
        "chance": {name: 1 / len(asked[name]) for name in ZERO_SHOT},
    }


def claims(summary: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """What is claimed, what its paper has, what is found here, and whether it held here."""
    models = summary["models"]

    def each(value) -> str:
        return ", ".join(f"d={dim} {value(of)}" for dim, of in models.items())

    def all_(condition) -> str:
        failing = [f"d={dim}" for dim, of in models.items() if not condition(of)]
        return "yes" if not failing else f"no: {', '.join(failing)}"

    def behind(of) -> float:
        return float(np.mean(of["meru"]["recall_at_1"]) - np.mean(of["clip"]["recall_at_1"]))

    def gain(of, variant, name="contrast") -> float:
        found = of["meru"]["scaled"]
        return float(found["as trained"][name] - found[variant][name])

    def recall(of, variant) -> float:
        r = np.asarray(of["meru"]["scaled"][variant]["recall"])
        return 50 * float(r[0] + r[2])

    low, high = CURVATURES
    gaps = {dim: behind(of) for dim, of in models.items()}
    first = next(iter(sorted(models, key=int)))
    rows = [
        (
            "captions are nearer to the root than images (Desai et al. 2023)",
            "yes",
            each(
                lambda of: (
                    f"{np.mean(of['meru']['text_radius']):.2f} to "
                    f"{np.mean(of['meru']['image_radius']):.2f}"
                )
            ),
            all_(
                lambda of: np.all(np.array(of["meru"]["text_radius"]) < of["meru"]["image_radius"])
            ),
        ),
        (
            "generic captions are nearer than specific ones (Spearman's interval above 0)",
            "shown by examples",
            each(
                lambda of: "{:.2f} [{:.2f}, {:.2f}]".format(
                    of["meru"]["generality"]["spearman"], *of["meru"]["generality"]["interval"]
                )
            ),
            all_(lambda of: of["meru"]["generality"]["interval"][0] > 0),
        ),
        (
            "control: so they are in CLIP, from its mean direction",
            "not measured",
            each(
                lambda of: "{:.2f} [{:.2f}, {:.2f}]".format(
                    of["clip"]["generality"]["spearman"], *of["clip"]["generality"]["interval"]
                )
            ),
            all_(lambda of: of["clip"]["generality"]["interval"][0] > 0),
        ),
        (
            f"recall@1 of MERU is at most {ENOUGH:g} points behind CLIP's",
            "on par",
            each(lambda of: f"{behind(of):+.1f}"),
            all_(lambda of: behind(of) >= -ENOUGH),
        ),
        (
            "MERU is ahead at the smallest dimension",
            "yes, at small width",
            f"d={first} {gaps[first]:+.1f}",
            "yes" if gaps[first] > 0 else "no",
        ),
        (
            "the entailment loss of held-out scenes falls",
            "yes",
            each(lambda of: "{:.3f} to {:.3f}".format(*of["meru"]["entailment"])),
            all_(lambda of: of["meru"]["entailment"][1] < of["meru"]["entailment"][0]),
        ),
        (
            f"the curvature stays inside of its limits, {low:g} < c < {high:g}",
            "it is kept there",
            each(lambda of: f"{np.mean(of['meru']['curvature']):.2f}"),
            all_(
                lambda of: np.all(
                    (np.array(of["meru"]["curvature"]) > low * (1 + 1e-4))
                    & (np.array(of["meru"]["curvature"]) < high * (1 - 1e-4))
                )
            ),
        ),
        (
            "on the way to the root MERU meets more true captions than CLIP",
            "yes",
            each(
                lambda of: f"{of['meru']['ways']['rungs']:.1f} to {of['clip']['ways']['rungs']:.1f}"
            ),
            all_(lambda of: of["meru"]["ways"]["rungs"] > of["clip"]["ways"]["rungs"]),
        ),
        (
            "scaling the radius lowers the loss by more than the temperature (Zhang et al. 2025)",
            "yes, graphs",
            each(lambda of: f"{gain(of, 'radius'):.3f} to {gain(of, 'temperature'):.3f}"),
            all_(lambda of: gain(of, "radius") > gain(of, "temperature")),
        ),
        (
            "and raises recall@1, which the temperature cannot",
            "yes, graphs",
            each(lambda of: f"{recall(of, 'radius') - recall(of, 'as trained'):+.1f}"),
            all_(lambda of: recall(of, "radius") > recall(of, "as trained")),
        ),
    ]
    return rows
