"""The figure of the study of calibrated scores, and the tables that its command prints."""

from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from rich.table import Table

from experiments._conclusion import claims_table, printed
from experiments._conformal_config import Config
from experiments._conformal_found import TASKS, labels_of
from experiments._conformal_labels import EPSILONS, MIDDLE, POWERS
from experiments._conformal_retrieval import METHODS, POINTS
from experiments._numbers import ranged
from rlkit.plots import style
from rlkit.train.records import Records, read_arrays

# Okabe and Ito's colours, which the colour-blind can tell apart; who prints in grey has the marks.
_LOOKS = dict(
    zip(
        TASKS,
        (
            {"color": "#0072B2", "marker": "o"},
            {"color": "#D55E00", "marker": "s"},
            {"color": "#009E73", "marker": "^"},
        ),
        strict=True,
    )
)
_CURVES = {
    "raw": {"color": "0.35", "linestyle": "-"},
    "z-score": {"color": "#CC79A7", "linestyle": ":"},
    "power": {"color": "#0072B2", "linestyle": "--"},
}


# --- the figure ----------------------------------------------------------------------------------


def figure(records: Records) -> plt.Figure:
    """Coverage and region size against epsilon, precision against recall, and what is filtered."""
    config, summary = Config(**records.config), records.summary
    sets = read_arrays(records.folder / "labels.npz")
    searched = read_arrays(records.folder / "retrieval.npz")
    with style.paper():
        fig, axes = plt.subplots(2, 2, figsize=(6.6, 5.2), constrained_layout=True)
        _draw_coverage(axes[0, 0], config, sets)
        _draw_sizes(axes[0, 1], config, summary)
        _draw_precision(axes[1, 0], searched)
        _draw_methods(axes[1, 1], config, summary)
        fig.suptitle(
            f"{config.data}, {_seeds(config)}, {config.splits} splits "
            "(means; bands and bars: range over seeds)",
            x=0.01,
            ha="left",
            fontsize=9,
        )
    return fig


def _draw_coverage(axes, config: Config, sets: dict[str, np.ndarray]) -> None:
    """What is missing of 1 - epsilon, so that small differences can be seen; shifted beside."""
    for task in TASKS:
        missed = 1 - sets[f"{task}/coverage"].mean(axis=1)
        shifted = 1 - sets[f"{task}/shifted"].mean(axis=1)
        label = f"{task} (2$^{{{labels_of(config)[task]}}}$ sets)"
        style.band(axes, EPSILONS, missed.T, color=_LOOKS[task]["color"])
        axes.plot(
            EPSILONS, missed.mean(axis=0), linestyle="", markersize=4, label=label, **_LOOKS[task]
        )
        axes.plot(
            EPSILONS,
            shifted.mean(axis=0),
            linestyle=":",
            markersize=3,
            fillstyle="none",
            **_LOOKS[task],
        )
    axes.plot([], [], ":", color="0.4", label="shifted test images")
    axes.plot(EPSILONS, EPSILONS, color="0.6", linewidth=0.7, zorder=1)
    axes.set(
        title="misses of the true label set",
        xlabel=r"$\varepsilon$ asked for",
        ylabel="share missed",
    )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(EPSILONS, [f"{e:g}" for e in EPSILONS])
    axes.set_yticks([0.02, 0.05, 0.1, 0.2, 0.5, 1], ["0.02", "0.05", "0.1", "0.2", "0.5", "1"])
    axes.minorticks_off()
    axes.legend(fontsize=6, loc="lower right")


def _draw_sizes(axes, config: Config, summary: dict[str, Any]) -> None:
    for task, of in summary["labels"].items():
        axes.plot(EPSILONS, of["size"][1], markersize=4, **_LOOKS[task])
        axes.plot(EPSILONS, of["median_size"], linestyle=":", markersize=0, **_LOOKS[task])
        axes.annotate(
            f"$2^{{{of['labels']}}}$",
            (0.01, 2.0 ** of["labels"]),
            xycoords=("axes fraction", "data"),
            ha="left",
            va="bottom",
            fontsize=6,
            color=_LOOKS[task]["color"],
        )
        axes.axhline(2.0 ** of["labels"], color=_LOOKS[task]["color"], linewidth=0.6, zorder=1)
    axes.plot([], [], color="0.4", label="mean")
    axes.plot([], [], ":", color="0.4", label="median")
    axes.set(
        title="label sets in a region, of all that there are",
        xlabel=r"$\varepsilon$",
        ylabel="label sets",
    )
    axes.set_xscale("log")
    axes.set_yscale("symlog", linthresh=1)
    top = max(of["labels"] for of in summary["labels"].values())
    axes.set_ylim(0, 2.0 ** (top + 6))
    axes.set_yticks([0, 1, *(10.0**k for k in range(3, int(0.30103 * top) + 1, 3))])
    axes.set_xticks(EPSILONS, [f"{e:g}" for e in EPSILONS])
    axes.minorticks_off()
    axes.legend(fontsize=6, loc="upper right", bbox_to_anchor=(1, 0.85))


def _draw_precision(axes, searched: dict[str, np.ndarray]) -> None:
    for method, look in _CURVES.items():
        curves = searched[f"{method}/curve"]
        axes.fill_between(
            POINTS, curves.min(0), curves.max(0), color=look["color"], alpha=0.15, linewidth=0
        )
        axes.plot(POINTS, curves.mean(axis=0), label=method, **look)
    axes.set(
        title="one cut-off for all queries",
        xlabel="recall",
        ylabel="precision",
        xlim=(0, 1),
    )
    axes.legend(fontsize=6, loc="upper right")


def _draw_methods(axes, config: Config, summary: dict[str, Any]) -> None:
    quantities = {
        "area": ("PR-AUC", "#0072B2", "o"),
        "precision": (f"precision at {config.recall:.0%} recall", "#D55E00", "s"),
        "filtered": (f"filtered at {config.recall:.0%} recall", "#009E73", "^"),
    }
    for i, (name, (title, color, marker)) in enumerate(quantities.items()):
        values = [np.array(summary["retrieval"][m][name], float) for m in METHODS]
        at = np.arange(len(METHODS)) + 0.16 * (i - 1)
        for x, value in zip(at, values, strict=True):
            axes.plot([x, x], [value.min(), value.max()], color=color, linewidth=1)
        means = [value.mean() for value in values]
        axes.plot(at, means, marker, color=color, markersize=4, label=title)
    axes.set_xticks(range(len(METHODS)), METHODS, rotation=25, ha="right")
    axes.set_title("cosines, raw and adapted")
    axes.set_ylim(0, 1.4 * axes.get_ylim()[1])  # room for the legend
    axes.grid(axis="y", linewidth=0.3, color="0.88")
    axes.legend(fontsize=6, loc="upper left")


# --- the tables ----------------------------------------------------------------------------------


def report(records: Records) -> str:
    """The tables that the command prints."""
    config, summary = Config(**records.config), records.summary
    return printed(
        records,
        _labels_table(config, summary),
        _powers_table(summary),
        _retrieval_table(config, summary),
        claims_table(summary["claims"]),
    )


def _labels_table(config: Config, summary: dict[str, Any]) -> Table:
    out = Table(
        title=f"regions of label sets at epsilon {EPSILONS[MIDDLE]:g}: {config.calibration} "
        f"calibration and {config.test} test images, {config.splits} splits, {_seeds(config)}",
        title_justify="left",
        caption="fuzziness: sum of the p-values of the false sets beyond the least there can be",
        caption_justify="left",
    )
    heads = ("labels", "accuracy", "coverage", "shifted", "mean size", "median", "fuzziness")
    out.add_column("task", no_wrap=True)
    for head in (*heads, "counts exact"):
        out.add_column(head, justify="right", no_wrap=True)
    for task, of in summary["labels"].items():
        out.add_row(
            task,
            str(of["labels"]),
            f"{np.mean(of['accuracy']):.3f}",
            f"{of['coverage'][MIDDLE]:.4f} ±{of['standard_error'][MIDDLE]:.4f}",
            f"{of['shifted'][MIDDLE]:.3f}",
            span(of["size"][0][MIDDLE], of["size"][1][MIDDLE]),
            f"{of['median_size'][MIDDLE]:.3g}",
            span(*of["fuzziness"]),
            f"{of['exact']:.0%}",
        )
    return out


def _powers_table(summary: dict[str, Any]) -> Table:
    out = Table(
        title=f"mean size at epsilon {EPSILONS[MIDDLE]:g} by the power p of the distance",
        title_justify="left",
    )
    out.add_column("task", no_wrap=True)
    for p in POWERS:
        out.add_column(f"p = {p:g}", justify="right", no_wrap=True)
    for task, of in summary["labels"].items():
        out.add_row(task, *(f"{size:.3g}" for size in of["powers"]))
    return out


def span(low: float, high: float) -> str:
    """Three digits, of both bounds where these differ."""
    both = f"{low:.3g}", f"{high:.3g}"
    return both[0] if both[0] == both[1] else "-".join(both)


def _retrieval_table(config: Config, summary: dict[str, Any]) -> Table:
    out = Table(
        title=f"passages of Python's help that search for others of their chapter, "
        f"{config.candidates} candidates each, one cut-off: mean of {_seeds(config)} ± half "
        "their range",
        title_justify="left",
        caption="transferred: recall and precision on test queries of the cut-off that has the "
        "wanted recall on others, which no adapter was trained on",
        caption_justify="left",
    )
    heads = ("scores", "PR-AUC", f"precision at {config.recall:.0%}", "filtered", "transferred")
    for i, head in enumerate(heads):
        out.add_column(head, justify="right" if i else "left", no_wrap=True)
    for method in METHODS:
        of = summary["retrieval"][method]
        moved = np.array(of["transferred"], float).mean(axis=0)
        out.add_row(
            method,
            *(ranged(of[name]) for name in ("area", "precision", "filtered")),
            f"{moved[0]:.3f}, {moved[1]:.3f}",
        )
    return out


def _seeds(config: Config) -> str:
    return f"{config.seeds} seed{'s' * (config.seeds > 1)}"
