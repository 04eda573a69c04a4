"""The figure of the study of hedged embeddings, and the tables that its command prints."""

from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.patches import Ellipse
from rich.table import Table

from experiments._conclusion import claims_table, printed
from experiments._hedged_config import Config, main_arm, voters
from experiments._hedged_found import (
    GAIN,
    GALLERIES,
    RISES,
    SETS,
    WITHIN,
    claims,
    known,
)
from experiments._numbers import bounds, number
from rlkit.plots import style
from rlkit.train.records import Records, read_arrays

# Okabe and Ito's, which the colour-blind can tell apart.
_POINT, _HEDGED, _OTHER = "#D55E00", "#0072B2", "#009E73"
_SHOWN = 10
"""Images whose distributions are drawn."""


# --- the figure ----------------------------------------------------------------------------------


def figure(records: Records) -> plt.Figure:
    """Embeddings clean and under squares, both kinds compared, uncertainty, and the sweep."""
    config, summary = Config(**records.config), records.summary
    images = read_arrays(records.folder / "images.npz")
    with style.paper():
        fig, axes = plt.subplots(2, 3, figsize=(7.4, 4.9), constrained_layout=True)
        _draw_embeddings(axes[0, 0], axes[0, 1], config, images)
        _draw_comparison(axes[0, 2], summary)
        _draw_area(axes[1, 0], summary)
        _draw_uncertainty(axes[1, 1], summary)
        _draw_sweep(axes[1, 2], summary)
        gaussians = "one Gaussian" if config.components == 1 else f"{config.components} Gaussians"
        fig.suptitle(
            f"{config.digits}-digit {config.data}, {config.dim} dimensions, {gaussians}, "
            f"beta {config.beta:g}, {config.steps} steps, {config.seeds} seeds",
            x=0.01,
            ha="left",
            fontsize=9,
        )
    return fig


def _draw_embeddings(left, right, config: Config, images: dict[str, np.ndarray]) -> None:
    """Of the first seed; the same images in both, those under squares spread over the areas."""
    main = main_arm(config)
    order = np.argsort(images["area"], kind="stable")
    chosen = order[np.linspace(len(order) // 2, len(order) - 1, _SHOWN).astype(int)]
    colors = plt.get_cmap("tab10")(np.arange(_SHOWN) % 10)
    cloud = images["mean/clean"][0, main].mean(axis=1)[:, :2]
    for axes, part in ((left, "clean"), (right, "corrupted")):
        axes.plot(*cloud.T, ".", color="0.8", markersize=1.5, zorder=1, rasterized=True)
        mean = images[f"mean/{part}"][0, main][..., :2]
        deviation = np.exp(images[f"log_variance/{part}"][0, main][..., :2] / 2)
        for i, color in zip(chosen, colors, strict=True):
            for center, size in zip(mean[i], deviation[i], strict=True):
                style_of = {"alpha": 0.2, "facecolor": color, "edgecolor": "none", "zorder": 2}
                axes.add_patch(Ellipse(center, *(4 * size), **style_of))
                axes.plot(*center, ".", color=color, markersize=3, zorder=3)
            text = f"{images['numbers'][i]:0{config.digits}d}"
            axes.annotate(text, mean[i].mean(axis=0), fontsize=6, xytext=(2, 2),
                          textcoords="offset points", zorder=4)  # fmt: skip
        axes.autoscale_view()
        axes.tick_params(labelsize=6)
    left.set_title("HIB: clean (ellipses: 2 deviations)")
    right.set_title("the same images under squares")
    # Both with the limits that hold all of it.
    for axis in ("x", "y"):
        limits = [getattr(axes, f"get_{axis}lim")() for axes in (left, right)]
        both = (min(low for low, _ in limits), max(high for _, high in limits))
        for axes in (left, right):
            getattr(axes, f"set_{axis}lim")(both)


def _draw_comparison(axes, summary: dict[str, Any]) -> None:
    what = [("ap", part) for part in SETS] + [("knn", part) for part in GALLERIES]
    arms = summary["arms"]
    for arm, color, shift, label in (
        (arms[0], _POINT, -0.15, "point"),
        (arms[summary["main"]], _HEDGED, 0.15, "HIB"),
    ):
        for x, (kind, part) in enumerate(what):
            values = np.array(arm[kind][part], float)
            wide = [x + shift - 0.13, x + shift + 0.13]
            axes.plot(wide, [values.mean()] * 2, color=color, label=None if x else label)
            axes.plot(np.full(len(values), x + shift), values, ".", color=color, markersize=3)
    labels = ["AP\nclean", "AP\ncorr.", "vote\nclean", "vote\ncorr.", "vote\nmixed"]
    axes.set_xticks(range(len(what)), labels, fontsize=6.5)
    axes.set(title="pairs (AP) and neighbours (vote)", ylim=(0, 1.02))
    axes.legend(loc="lower left")


def _draw_area(axes, summary: dict[str, Any]) -> None:
    of = summary["area"]["of"]
    main = summary["arms"][summary["main"]]["name"]
    for color, (name, curve) in zip(style.mode_colors(len(of)), of.items(), strict=True):
        beta = name.removeprefix("HIB, beta ")
        axes.plot(summary["area"]["area"], curve["mismatch"], ".-", color=color, label=beta,
                  linewidth=1.6 if name == main else 0.8, markersize=3)  # fmt: skip
        if name == main:
            axes.fill_between(
                summary["area"]["area"], *curve["interval"], color=color, alpha=0.2, linewidth=0
            )
    axes.set(
        title=f"Spearman {number(of[main]['spearman'])}",
        xlabel="occluded share of the digits",
        ylabel="self-mismatch",
    )
    axes.set_ylim(bottom=0)
    axes.legend(title="beta", title_fontsize=6, fontsize=6, loc="best")


def _draw_uncertainty(axes, summary: dict[str, Any]) -> None:
    of = summary["uncertainty"]
    for name, label, color in (("ap", "AP of pairs", _OTHER), ("knn", "vote", _HEDGED)):
        x = of["mismatch"]
        axes.fill_between(x, *of[f"{name}_interval"], color=color, alpha=0.2, linewidth=0)
        axes.plot(x, of[name], ".-", color=color, markersize=3, label=label)
    axes.set(
        title=f"corrupted; Kendall {number(of['ap_kendall'])}, {number(of['knn_kendall'])}",
        xlabel="self-mismatch (bins)",
        ylim=(0, 1.02),
    )
    axes.legend(loc="best")


def _draw_sweep(axes, summary: dict[str, Any]) -> None:
    arms = summary["arms"]
    x = np.arange(len(arms) - 1)
    for kind, part, label, color, line in (
        ("ap", "clean", "AP, clean", _OTHER, "-"),
        ("knn", "corrupted", "vote, corrupted", _HEDGED, "-"),
        ("share", "clean", "variance (share)", "0.3", "--"),
    ):
        values = np.array([arm[kind][part] for arm in arms], float)
        style.band(axes, x, values[1:], color=color, label=label)
        axes.lines[-1].set(linestyle=line, marker=".")  # one beta alone is no line
        if kind != "share":
            axes.plot([-0.4], values[0].mean(), ">", color=color, markersize=4)
    labels = [f"{arm['beta']:g}" for arm in arms[1:]]
    axes.set_xticks(x, labels, fontsize=7)
    axes.set(title="sweep (triangles: point)", xlabel="beta", ylim=(0, 1.02))
    axes.legend(fontsize=6, loc="best")


# --- the tables ----------------------------------------------------------------------------------


def report(records: Records) -> str:
    """The tables that the command prints."""
    config, summary = Config(**records.config), records.summary
    return printed(
        records,
        _accuracy_table(config, summary),
        _spread_table(summary),
        claims_table(claims(config, summary), ("claim", "Oh et al. 2019", "here", "held here")),
        _verdict(summary),
    )


def _accuracy_table(config: Config, summary: dict[str, Any]) -> Table:
    out = Table(
        title=f"{config.digits}-digit {config.data} in {config.dim} dimensions: AP of pairs, "
        f"and vote of k = {voters(config)[0]}; means over {config.seeds} seeds (least to greatest)",
        title_justify="left",
    )
    out.add_column("embedding", no_wrap=True)
    for head in [f"AP, {part}" for part in SETS] + [f"vote: {x}" for x in GALLERIES.values()]:
        out.add_column(head, justify="right")
    for arm in summary["arms"]:
        values = [arm["ap"][part] for part in SETS] + [arm["knn"][part] for part in GALLERIES]
        out.add_row(arm["name"], *(_range(v) for v in values))
    return out


def _range(values) -> str:
    return f"{np.mean(values):.3f} ({np.min(values):.3f} to {np.max(values):.3f})"


def _spread_table(summary: dict[str, Any]) -> Table:
    out = Table(
        title="spread: self-mismatch, the embedding's own share of all variance, divergence from "
        "the prior in nats, and the match it learned; of bins of area Spearman [95 %] and Kendall",
        title_justify="left",
    )
    heads = ("mismatch, clean", "corrupted", "variance, clean", "share", "nats", "scale", "offset")
    out.add_column("embedding", no_wrap=True)
    for head in (*heads, "Spearman with area", "Kendall"):
        out.add_column(head, justify="right")
    for arm in summary["arms"][1:]:
        of_area = summary["area"]["of"][arm["name"]]
        out.add_row(
            arm["name"],
            *(f"{np.mean(arm['mismatch'][part]):.3f}" for part in SETS),
            f"{np.mean(arm['variance']['clean']):.4f}",
            f"{np.mean(arm['share']['clean']):.4f}",
            f"{np.mean(arm['divergence']['clean']):.2f}",
            *(f"{np.mean(arm[what]):.2f}" for what in ("scale", "offset")),
            f"{number(of_area['spearman'])} {bounds(of_area['spearman_interval'])}",
            number(of_area["kendall"]),
        )
    return out


def _verdict(summary: dict[str, Any]) -> str:
    """Whether hedging does what it is for."""
    point, main = summary["arms"][0], summary["arms"][summary["main"]]
    gain = 100 * (np.mean(main["knn"]["corrupted"]) - np.mean(point["knn"]["corrupted"]))
    cost = 100 * (np.mean(point["ap"]["clean"]) - np.mean(main["ap"]["clean"]))
    spearman = summary["area"]["of"][main["name"]]["spearman"]
    missed = [
        text
        for text, holds in (
            (f"the gain is below {GAIN:g}", gain >= GAIN),
            (f"the cost is above {WITHIN:g}", cost <= WITHIN),
            (f"the self-mismatch does not rise (below {RISES:g})", known(spearman) >= RISES),
        )
        if not holds
    ]
    return (
        f"hedging gains {gain:+.1f} points of the vote on corrupted images, costs {cost:.1f} "
        f"points of clean AP, and its uncertainty goes with occlusion at {number(spearman)}: "
        + (f"NOT as claimed ({'; '.join(missed)})" if missed else "as claimed")
    )
