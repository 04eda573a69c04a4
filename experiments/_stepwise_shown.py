"""The figure of the study of stepwise learning, and the tables that its command prints."""

from typing import Any

import jax
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.ticker import LogLocator, NullFormatter
from rich.table import Table

from experiments._conclusion import claims_table, printed
from experiments._stepwise_config import Config, has_control, is_linear, tracks_cross_correlation
from experiments._stepwise_measured import RULE, Measured, claims, rises
from rlkit.plots import style
from rlkit.train.records import Records


def figure(records: Records) -> plt.Figure:
    """Loss, eigenvalues, step times, and rank with accuracy; theory over measurement.

    With a prediction, lines are medians and bands the range over seeds; of networks every seed's
    loss is drawn.
    """
    run = Measured.of(records)
    control = Measured.of(Records(records.folder / "control")) if has_control(run.config) else None
    with jax.enable_x64(is_linear(run.config)), style.paper():
        fig, axes = plt.subplots(2, 2, figsize=(6.8, 4.6), constrained_layout=True)
        predicted = run.predicted() if run.has_prediction() else None
        _draw_loss(axes[0, 0], run, control, predicted)
        _draw_eigenvalues(axes[0, 1], run, predicted)
        if predicted is not None:
            _draw_times(axes[1, 0], run, predicted)
        else:
            _draw_rises(axes[1, 0], run, control)
        _draw_rank(axes[1, 1], run)
        fig.suptitle(
            f"{run.config.loss} on {run.config.data}, {run.config.model} model, "
            f"{run.config.seeds} seeds",
            x=0.01,
            ha="left",
            fontsize=9,
        )
    return fig


def _time_label(config: Config) -> str:
    rate = "learning rate / (1 - momentum)" if config.momentum else "learning rate"
    return f"effective time ({rate} x step)"


def _draw_loss(axes, run: Measured, control: Measured | None, predicted) -> None:
    draw = style.band if is_linear(run.config) else style.lines
    draw(
        axes,
        run.t,
        run.loss,
        color="tab:blue",
        label="measured" if control is None else "small start",
    )
    if predicted is not None:
        axes.plot(run.t, np.median(predicted[2], axis=1), "k--", linewidth=0.8, label="theory")
    if control is not None:
        draw(axes, control.t, control.loss, color="tab:orange", label="usual start")
    axes.set(title="loss", xlabel=_time_label(run.config))
    axes.legend()


def _draw_eigenvalues(axes, run: Measured, predicted) -> None:
    # The steps of a network fall at other times for each seed: a band would blur them.
    shown = slice(None) if is_linear(run.config) else slice(1)
    for j, color in enumerate(style.mode_colors(run.config.dim)):
        style.band(axes, run.t, run.eigenvalues[:, shown, j], color=color)
        if predicted is not None:
            axes.plot(run.t, np.median(predicted[1][:, :, j], axis=1), "k--", linewidth=0.8)
    of_what = (
        "cross-correlation" if tracks_cross_correlation(run.config) else "embedding covariance"
    )
    of_whom = "" if is_linear(run.config) else f", seed {run.config.seed}"
    axes.set(title=f"eigenvalues of the {of_what}{of_whom}", xlabel=_time_label(run.config))


def _draw_times(axes, run: Measured, predicted) -> None:
    times = run.half_times()
    for j, color in enumerate(style.mode_colors(run.config.dim)):
        axes.plot(predicted[0][:, j], times[:, j], "o", color=color, markersize=3.5)
    finite = predicted[0][np.isfinite(predicted[0]) & (predicted[0] > 0)]
    if finite.size:
        ends = np.array([finite.min() * 0.8, finite.max() * 1.25])
        axes.plot(ends, ends, "k--", linewidth=0.8)
    axes.set(
        title="time of half height, each mode and seed",
        xlabel="predicted",
        ylabel="measured",
    )
    for axis, set_scale in ((axes.xaxis, axes.set_xscale), (axes.yaxis, axes.set_yscale)):
        set_scale("log")
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())


def _draw_rises(axes, run: Measured, control: Measured | None) -> None:
    """When each mode that counts rises: one seed of each start."""
    parts = [("small\nstart", run)] + ([("usual\nstart", control)] if control else [])
    low, high = RULE["low"], RULE["high"]
    row, labels = 0, {}
    for name, part in parts:
        _, groups, intervals = rises(part.t, part.eigenvalues[:, 0])
        labels[row + part.config.dim / 2] = name
        for color, interval, group in zip(
            style.mode_colors(part.config.dim),
            np.asarray(intervals),
            np.asarray(groups),
            strict=True,
        ):
            if group >= 0:
                axes.plot(interval, [row, row], color=color, linewidth=3)
            row += 1
        row += 1
    axes.set(
        title=f"rise of each mode ({low:.0%} to {high:.0%}), seed {run.config.seed}",
        xlabel=_time_label(run.config),
        xlim=(0, run.t[-1]),
        ylim=(row, -1),
    )
    axes.set_yticks(list(labels), list(labels.values()))
    axes.tick_params(axis="y", length=0)


def _draw_rank(axes, run: Measured) -> None:
    style.band(axes, run.t, run.rankme, color="tab:green")
    axes.set(
        title="RankMe (left) and linear-probe accuracy (right)", xlabel=_time_label(run.config)
    )
    axes.tick_params(axis="y", colors="tab:green")
    if run.accuracy is None:
        axes.set(title="RankMe")
        return
    right = axes.twinx()
    style.band(right, run.t, run.accuracy, color="tab:purple")
    right.set_ylim(0, 1)
    right.spines["right"].set_visible(True)
    right.tick_params(axis="y", colors="tab:purple")


def report(records: Records) -> str:
    """The tables that the command prints."""
    summary = records.summary
    config = Config(**records.config)
    table = claims_table(claims(summary, config), ("Simon et al. 2023", "here", "held"))
    finals = ("final_rankme", "final_accuracy", "final_distance", "final_procrustes")
    return printed(
        records,
        *([_modes_table(summary["modes"])] if "modes" in summary else []),
        table if table.rows else "No claim of the paper is about this run.",
        *(
            f"{name.replace('_', ' ')}: {_spread(summary[name])}"
            for name in finals
            if summary.get(name) is not None
        ),
        width=100,
    )


def _modes_table(modes: list[dict[str, Any]]) -> Table:
    table = Table(title="time of half height", title_justify="left")
    for head in ("mode", "gamma", "gap", "predicted", "measured", "relative error"):
        table.add_column(head, justify="right")
    for m in modes:
        table.add_row(
            str(m["mode"]),
            f"{m['gamma']:.4g}",
            f"{m['gap']:.2f}",
            _spread(m["predicted"]),
            _spread(m["measured"]),
            f"{_greatest(m['relative_error']):.2%}",
        )
    return table


def _greatest(values) -> float:
    return float(np.max(np.array(values, dtype=float)))


def _spread(values) -> str:
    """Median and range over seeds."""
    values = np.array(values, dtype=float)
    if values.size == 1:
        return f"{values.item():.4g}"
    return f"{np.median(values):.4g} ({values.min():.4g} to {values.max():.4g})"
