"""The figure of the study of rank and accuracy, and the tables that its command prints."""

from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.ticker import LogLocator, NullFormatter
from rich.table import Table

from experiments._conclusion import claims_table, printed
from experiments._numbers import number
from experiments._rankme_config import PARAMETERS, Config, grid, programs, table
from experiments._rankme_found import (
    ENOUGH,
    MEASURES,
    OVERALL,
    RESAMPLES,
    SHAPES,
    claims,
)
from rlkit.plots import style
from rlkit.train.records import Records

# Okabe and Ito's, which the colour-blind can tell apart.
_COLORS = dict(zip(PARAMETERS, ("#0072B2", "#D55E00", "#009E73"), strict=True))
_MARKERS = ("o", "^", "s", "D", "v", "P")
_LINES = ("-", "--", ":", "-.")
_CHOOSERS = {"rankme": "o", "alpha_req": "^", "lidar": "s", "nesum": "D", "rankme_features": "v"}


# --- the figure ----------------------------------------------------------------------------------


def figure(records: Records) -> plt.Figure:
    """Three measures against accuracy, what choices are worth, the rank over time, the control.

    Of the summary beside the records, dots are means over seeds.
    """
    config, summary = Config(**records.config), records.summary
    with style.paper():
        fig, axes = plt.subplots(2, 3, figsize=(7.4, 4.9), constrained_layout=True)
        for panel, name in zip(axes[0], ("rankme", "alpha_req", "lidar"), strict=True):
            _draw_runs(panel, config, summary, name)
        axes[0, 0].set_ylabel("linear probe (accuracy)")
        _draw_choices(axes[1, 0], summary)
        _draw_over_time(axes[1, 1], config, records)
        _draw_control(axes[1, 2], summary)
        dims = dict.fromkeys(dim for _, dim in programs(config))
        handles = [
            plt.Line2D([], [], linestyle="", marker="s", color=_COLORS[loss], label=loss)
            for loss in dict.fromkeys(loss for loss, _ in programs(config))
        ] + [
            plt.Line2D(
                [], [], color="0.4", marker=_marker(i), markersize=4, linestyle=_line(i),
                label=f"{dim} dimensions",
            )
            for i, dim in enumerate(dims)
        ]  # fmt: skip
        fig.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 6))
        fig.suptitle(
            f"{config.data}, {config.model} model, {len(table(config))} settings, "
            f"{config.seeds} seeds",
            x=0.01,
            ha="left",
            fontsize=9,
        )
    return fig


def _marker(i: int) -> str:
    return _MARKERS[i % len(_MARKERS)]


def _line(i: int) -> Any:
    return _LINES[i % len(_LINES)]


def _draw_runs(axes, config: Config, summary: dict[str, Any], name: str) -> None:
    runs = summary["runs"]
    for i, (loss, dim) in enumerate(programs(config)):
        part = [run for run in runs if (run["loss"], run["dim"]) == (loss, dim)]
        x, y = (_means([run[what] for run in part]) for what in (name, "accuracy"))
        kind = i % len(dict.fromkeys(d for _, d in programs(config)))
        axes.plot(
            x, y, _marker(kind), color=_COLORS[loss], markersize=3.5, alpha=0.7,
            markeredgecolor="white", markeredgewidth=0.3,
        )  # fmt: skip
    if name == "alpha_req":
        axes.axvline(1, color="0.5", linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
    else:
        axes.set_xscale("log")
        _label_logs(axes.xaxis)
    rows = summary["selection"]
    overall = rows.get(OVERALL, next(iter(rows.values())))
    axes.axhline(summary["untrained"], color="0.6", linewidth=0.8, linestyle=":", zorder=1)
    axes.annotate(
        "untrained",
        (0.99, summary["untrained"]),
        xycoords=("axes fraction", "data"),
        xytext=(0, -7),
        textcoords="offset points",
        ha="right",
        color="0.4",
        fontsize=6,
    )
    axes.set(
        title=f"Spearman {number(overall[name]['spearman'])} overall",
        xlabel=f"{MEASURES[name]}, no labels",
    )


def _label_logs(axis) -> None:
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def _means(values) -> np.ndarray:
    """Over seeds; a run that collapsed has no exponent, which JSON holds as null."""
    values = np.array(values, dtype=float)
    defined = np.isfinite(values)
    count = defined.sum(axis=1)
    total = np.where(defined, values, 0).sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _draw_choices(axes, summary: dict[str, Any]) -> None:
    """For each loss the oracle, every measure's choice, and the mean of the grid."""
    for x, (group, of) in enumerate(summary["selection"].items()):
        color = _COLORS.get(group, "0.25")
        low, high = of["random"]["accuracy_interval"]
        wide = [x - 0.4, x + 0.4]
        axes.fill_between(wide, low, high, color=color, alpha=0.2, linewidth=0)
        for value, line in ((of["oracle"]["accuracy"], "-"), (of["random"]["accuracy"], ":")):
            axes.plot(wide, [value, value], line, color=color, linewidth=1)
        for i, (name, marker) in enumerate(_CHOOSERS.items()):
            at = x + 0.16 * (i - (len(_CHOOSERS) - 1) / 2)
            axes.plot(at, of[name]["accuracy"], marker, color=color, markersize=4)
    handles = [
        plt.Line2D([], [], color="0.3", linestyle="", marker=m, markersize=4, label=MEASURES[k])
        for k, m in _CHOOSERS.items()
    ] + [
        plt.Line2D([], [], color="0.3", linestyle=line, linewidth=1, label=label)
        for line, label in (("-", "oracle"), (":", "random"))
    ]
    low, high = axes.get_ylim()
    axes.set_ylim(low - 0.45 * (high - low), high)  # room for the legend
    axes.legend(handles=handles, fontsize=6, loc="lower center", ncols=2, columnspacing=0.8)
    names = [group.replace("_", "\n") for group in summary["selection"]]
    axes.set_xticks(range(len(names)), names, fontsize=6)
    axes.set(title="what a choice is worth", ylabel="linear probe (accuracy)")


def _draw_over_time(axes, config: Config, records: Records) -> None:
    """Median over settings and seeds, with the middle half."""
    curves, column = records.array("rankme"), 0
    kinds = list(dict.fromkeys(dim for _, dim in programs(config)))
    for loss, dim in programs(config):
        size = len(grid(config)[loss]["lr"])
        part = curves[:, :, column : column + size].reshape(len(curves), -1)
        column += size
        low, middle, high = np.percentile(part, [25, 50, 75], axis=1)
        kind = kinds.index(dim)
        axes.fill_between(records.steps, low, high, color=_COLORS[loss], alpha=0.12, linewidth=0)
        axes.plot(records.steps, middle, _line(kind), color=_COLORS[loss])
    axes.set_xscale("symlog", linthresh=1)
    axes.set_yscale("log")
    axes.set(title="RankMe (median, middle half)", xlabel="step", xlim=(0, records.steps[-1]))
    axes.minorticks_off()
    _label_logs(axes.yaxis)


def _draw_control(axes, summary: dict[str, Any]) -> None:
    for loss, of in summary["control"].items():
        axes.plot(of["rankme"], of["accuracy"], ".-", color=_COLORS[loss])
        axes.plot(
            of["rankme"][0], of["accuracy"][0], "o", color="white", markersize=4,
            markeredgecolor=_COLORS[loss],
        )  # fmt: skip
    axes.set(
        title="control: noise on the embeddings",
        xlabel="RankMe (from a ring: no noise)",
        ylabel="probe of the embedding",
    )


# --- the tables ----------------------------------------------------------------------------------


def report(records: Records) -> str:
    """The tables that the command prints."""
    config, summary = Config(**records.config), records.summary
    return printed(
        records,
        _selection_table(config, summary),
        _correlation_table(summary),
        _phase_table(summary),
        claims_table(claims(summary)),
        _verdict(summary),
    )


def _selection_table(config: Config, summary: dict[str, Any]) -> Table:
    found = summary["selection"]
    out = Table(
        title=f"test accuracy of the run that is chosen, and share of the oracle's: means over "
        f"{config.seeds} seeds, each with {len(table(config))} runs on {config.data}",
        title_justify="left",
        caption=f"random: mean of the grid, and the middle 95 % of {RESAMPLES} resampled grids; "
        f"an untrained encoder has {summary['untrained']:.3f}, pixels {summary['pixels']:.3f}",
        caption_justify="left",
    )
    out.add_column("chosen by", no_wrap=True)
    for group in found:
        out.add_column(group, justify="right", no_wrap=True)
    out.add_row("oracle (labels)", *(f"{of['oracle']['accuracy']:.3f}" for of in found.values()))
    for name, title in MEASURES.items():
        out.add_row(title, *(_worth(of[name]) for of in found.values()))
    out.add_row("random", *(_worth(of["random"]) for of in found.values()))
    intervals = (_interval(of["random"]["accuracy_interval"], 3) for of in found.values())
    out.add_row("random, 95 %", *intervals)
    return out


def _worth(of: dict[str, Any]) -> str:
    return f"{of['accuracy']:.3f} ({of['share']:.1%})"


def _interval(bounds, digits: int = 2) -> str:
    return f"[{', '.join(number(bound, digits) for bound in bounds)}]"


def _correlation_table(summary: dict[str, Any]) -> Table:
    out = Table(
        title="Spearman [95 %] and Kendall with the accuracy, more of the measure being better "
        "(alpha-ReQ: nearer to 1)",
        title_justify="left",
    )
    out.add_column("measure", no_wrap=True)
    for group in summary["selection"]:
        out.add_column(group, justify="right", no_wrap=True)
    for name, title in MEASURES.items():
        out.add_row(
            title,
            *(
                f"{number(of[name]['spearman'])} {_interval(of[name]['spearman_interval'])} "
                f"{number(of[name]['kendall'])}"
                for of in summary["selection"].values()
            ),
        )
    return out


def _phase_table(summary: dict[str, Any]) -> Table:
    out = Table(
        title="RankMe over the steps: share of the runs, and accuracy of those with a peak",
        title_justify="left",
    )
    out.add_column("runs", no_wrap=True)
    for kind in (*SHAPES, "at the peak", "at the end"):
        out.add_column(kind, justify="right")
    for group, of in summary["phases"].items():
        ends = [number(of[k], 3) if of[k] is not None else "" for k in ("at_peak", "at_end")]
        out.add_row(group, *(f"{of['shares'][kind]:.0%}" for kind in SHAPES), *ends)
    return out


def _verdict(summary: dict[str, Any]) -> str:
    """Whether RankMe's choices are near enough to the oracle's."""
    shares = {group: of["rankme"]["share"] for group, of in summary["selection"].items()}
    short = [f"{group} ({share:.1%})" for group, share in shares.items() if share < ENOUGH]
    if short:
        return (
            f"RankMe's choice does NOT reach {ENOUGH:.0%} of the oracle's accuracy: "
            f"{', '.join(short)}"
        )
    least = min(shares, key=shares.get)
    return (
        f"RankMe's choice reaches {ENOUGH:.0%} of the oracle's accuracy everywhere "
        f"(least: {shares[least]:.1%}, {least})"
    )
