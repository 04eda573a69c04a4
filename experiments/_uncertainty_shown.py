"""The figure of the study of uncertainties that transfer, and the tables of its command."""

from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from rich.table import Table

from experiments._conclusion import claims_table, printed
from experiments._numbers import bounds, mean, number
from experiments._uncertainty_config import METHODS, Config, classes_of, methods_of, tests_of
from experiments._uncertainty_found import COVERAGES
from rlkit.plots import style
from rlkit.train.records import Records

# Okabe and Ito's, which the colour-blind can tell apart, and a brown; who prints in grey has marks.
_COLORS = ("#0072B2", "#56B4E9", "#009E73", "#000000", "#D55E00", "#CC79A7", "#E69F00", "#8C6D46")
_MARKS = ("o", "v", "^", "P", "s", "D", "X", "*")
_LOOKS = {
    method: {"color": color, "marker": mark, "markersize": 6 if mark == "*" else 4}
    for method, color, mark in zip(METHODS, _COLORS, _MARKS, strict=True)
}
_TESTS = ("s", "o", "^", "D", "v", "P")


# --- the figure ----------------------------------------------------------------------------------


def figure(records: Records) -> plt.Figure:
    """R-AUROC by method and test, beside R@1, over time, and what is left when some are refused."""
    config, summary = Config(**records.config), records.summary
    with style.paper():
        fig, axes = plt.subplots(2, 2, figsize=(7.0, 5.8), constrained_layout=True)
        _draw_values(axes[0, 0], config, summary)
        _draw_beside_recall(axes[0, 1], config, summary)
        _draw_over_time(axes[1, 0], config, records)
        _draw_refusals(axes[1, 1], config, summary)
        handles = [
            plt.Line2D([], [], label=name, linewidth=1.2, **_LOOKS[name])
            for name in methods_of(config)
        ]
        fig.legend(handles=handles, loc="outside lower center", ncols=4)
        classes = ",".join(str(c) for c in classes_of(config))
        fig.suptitle(
            f"{config.data}, trained on classes {classes}, {config.seeds} seeds",
            x=0.01,
            ha="left",
            fontsize=9,
        )
    return fig


def _draw_values(axes, config: Config, summary: dict[str, Any]) -> None:
    """Mean over seeds, and for held-out classes the interval over images."""
    methods = methods_of(config)
    for i, name in enumerate(tests_of(config)):
        values = [mean(v) for v in summary["tests"][name]["r_auroc"]]
        at = np.arange(len(methods)) + 0.14 * (i - (len(tests_of(config)) - 1) / 2)
        held_out = name == "held-out"
        axes.plot(
            values, at, _TESTS[i], color="#D55E00" if held_out else "0.45", markersize=4,
            markerfacecolor="#D55E00" if held_out else "white", label=name,
        )  # fmt: skip
        if held_out:
            bounds = np.array(summary["tests"][name]["interval"], float)
            axes.hlines(at, bounds[:, 0], bounds[:, 1], color="#D55E00", linewidth=1)
    axes.axvline(0.5, color="0.5", linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
    control = np.array(summary["tests"]["held-out"]["control_range"], float)
    axes.axvspan(*control, color="0.92", linewidth=0, zorder=0, label="random (held-out)")
    axes.set_yticks(range(len(methods)), methods)
    axes.set_ylim(len(methods) - 0.4, -0.6)
    axes.set(title="R-AUROC (mean; held-out: 95 % over images)", xlabel="R-AUROC (chance: 0.5)")
    axes.grid(axis="x", linewidth=0.3, color="0.88")
    low, high = axes.get_xlim()
    axes.set_xlim(low, high + 0.4 * (high - low))  # room for the legend
    axes.legend(fontsize=6, loc="lower right")


def _draw_beside_recall(axes, config: Config, summary: dict[str, Any]) -> None:
    of = summary["tests"]["held-out"]
    for method, area, recall in zip(methods_of(config), of["r_auroc"], of["recall"], strict=True):
        look = _LOOKS[method]
        area, recall = np.array(area, float), np.array(recall, float)
        axes.plot(recall, area, ".", color=look["color"], markersize=2.5, alpha=0.6)
        axes.plot(
            recall.mean(), mean(area), look["marker"], color=look["color"],
            markersize=look["markersize"] + 2, markeredgecolor="white", markeredgewidth=0.4,
        )  # fmt: skip
    axes.axhline(0.5, color="0.5", linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
    axes.set(
        title="held-out: R-AUROC beside R@1 (dots: seeds)",
        xlabel="R@1 (share of right neighbours)",
        ylabel="R-AUROC",
    )


def _draw_over_time(axes, config: Config, records: Records) -> None:
    curves = np.array(records.summary["curves"]["held-out"], float)  # [T m s]
    for i, method in enumerate(methods_of(config)):
        middle = [mean(values) for values in curves[:, i]]
        axes.plot(records.steps, middle, **_LOOKS[method])
    axes.axhline(0.5, color="0.5", linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
    axes.set(
        title="held-out classes, in training (mean over seeds)",
        xlabel="step",
        ylabel="R-AUROC",
        xlim=(0, records.steps[-1]),
    )


def _draw_refusals(axes, config: Config, summary: dict[str, Any]) -> None:
    risk = np.array(summary["tests"]["held-out"]["risk"], float)
    for method, curve in zip(methods_of(config), risk, strict=True):
        axes.plot(COVERAGES, curve, markevery=6, **_LOOKS[method])
    axes.set(
        title="held-out classes: errors among the surest",
        xlabel="share of the images that are answered",
        ylabel="share of wrong neighbours",
        xlim=(0, 1),
        ylim=(0, None),
    )


# --- the tables ----------------------------------------------------------------------------------


def report(records: Records) -> str:
    """The tables that the command prints."""
    config, summary = Config(**records.config), records.summary
    return printed(
        records,
        _table(config, summary),
        claims_table(summary["claims"]),
    )


def _table(config: Config, summary: dict[str, Any]) -> Table:
    tests = summary["tests"]
    sizes = ", ".join(f"{name} {of['images']}" for name, of in tests.items())
    out = Table(
        title=f"R-AUROC (R@1) after {config.steps} steps on classes {config.classes} of "
        f"{config.data}: means of {config.seeds} seeds; held-out also 95 % over images",
        title_justify="left",
        caption=f"images: {sizes}; random: {config.controls} draws a seed, against the neighbours "
        "of the first row's network, and the middle 95 % of single draws",
        caption_justify="left",
    )
    out.add_column("uncertainty", no_wrap=True)
    for name in tests:
        out.add_column(name, justify="right", no_wrap=True)
    for i, method in enumerate(methods_of(config)):
        cells = []
        for name, of in tests.items():
            text = f"{number(mean(of['r_auroc'][i]), 3)}"
            if name == "held-out":
                text += f" {bounds(of['interval'][i], 3)}"
            cells.append(f"{text} ({np.mean(of['recall'][i]):.3f})")
        out.add_row(method, *cells)
    cells = [f"{number(of['control'], 3)} {bounds(of['control_range'])}" for of in tests.values()]
    out.add_row("random (control)", *cells, style="dim")
    before = [f"({summary['untrained'][name][0]:.3f})" for name in tests]
    out.add_row(f"{methods_of(config)[0]}, untrained", *before, style="dim")
    return out
