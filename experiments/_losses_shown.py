"""The figure of the comparison of losses, and the table that its command prints."""

import itertools
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from rich.table import Table

from experiments._conclusion import printed
from experiments._losses_config import Config, names_of
from experiments._losses_listed import SUPERVISED
from rlkit.plots import style
from rlkit.train.records import Records, read_arrays

SEEN = {
    "alignment": "alignment",
    "uniformity": "uniformity",
    "rankme": "RankMe",
    "linear": "linear probe",
    "neighbours": "neighbours",
}
"""What is recorded of each loss, and its column in the table."""

_TITLES = {
    "alignment": "alignment of held-out pairs (0 to 4)",
    "uniformity": "uniformity of held-out views (nats)",
    "rankme": "RankMe (1 to {dim})",
    "linear": "linear probe (accuracy)",
    "neighbours": "{k} nearest neighbours (accuracy)",
}


def summarize(records: Records) -> dict[str, Any]:
    """Where every loss ends, [s] for each quantity; the common start, and the pixels."""
    losses = names_of(Config(**records.config))
    curves = {loss: {what: records.scalar(f"{loss}/{what}") for what in SEEN} for loss in losses}
    return {
        "final": {loss: {k: v[-1] for k, v in seen.items()} for loss, seen in curves.items()},
        "start": {k: v[0] for k, v in curves[losses[0]].items()},
        "pixels": _pixels(records),
    }


def _pixels(records: Records) -> dict[str, float]:
    return {k: v.item() for k, v in read_arrays(records.folder / "pixels.npz").items()}


# --- the figure ----------------------------------------------------------------------------------

# Okabe and Ito's colours, which the colour-blind can tell apart, without their yellow and with a
# brown. Who prints in grey has the markers.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D46")
_MARKERS = {"o": 4, "s": 4, "^": 5, "D": 4, "v": 5, "X": 5, "P": 5, "*": 7}  # and their sizes
_STYLES = ("-", "--", ":", "-.", (0, (8, 2, 1, 1, 1, 2)))
_COLUMNS = 4  # of the legend


def _looks(losses: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """A colour and a marker for each loss and, from the ninth on, another line."""
    looks = [
        (linestyle, color, *marker)
        for linestyle in _STYLES
        for color, marker in zip(_COLORS, _MARKERS.items(), strict=True)
    ]
    return {
        loss: {
            "linestyle": linestyle,
            "color": color,
            "marker": marker,
            "markersize": size,
            "markeredgecolor": "white",
            "markeredgewidth": 0.4,
        }
        for loss, (linestyle, color, marker, size) in zip(
            losses, itertools.cycle(looks), strict=False
        )
    }


def figure(records: Records) -> plt.Figure:
    """The plane of alignment and uniformity, and each quantity over time; bands over the seeds."""
    config = Config(**records.config)
    losses = names_of(config)
    looks, pixels = _looks(losses), _pixels(records)
    rows = -(-len(losses) // _COLUMNS)
    with style.paper():
        fig, axes = plt.subplots(2, 3, figsize=(7.0, 4.25 + 0.19 * rows), constrained_layout=True)
        _draw_plane(axes[0, 0], records, looks)
        for panel, what in zip(axes.flat[1:], SEEN, strict=True):
            curves = {loss: records.scalar(f"{loss}/{what}") for loss in losses}
            _draw_over_time(panel, records.steps, curves, looks)
            panel.set_title(_TITLES[what].format(dim=config.dim, k=config.k))
            if what in pixels:
                _draw_pixels(panel, pixels[what])
        handles = [plt.Line2D([], [], label=_name(loss), **look) for loss, look in looks.items()]
        fig.legend(handles=handles, loc="outside lower center", ncols=min(len(losses), _COLUMNS))
        seeds = f"{config.seeds} seeds (median, range)" if config.seeds > 1 else "1 seed"
        fig.suptitle(
            f"{config.data}, {config.model} model, {seeds}"
            f"{', * sees the labels' if _any_sees_labels(losses) else ''}",
            x=0.01,
            ha="left",
            fontsize=9,
        )
    return fig


def _draw_plane(axes, records: Records, looks) -> None:
    """Median trajectories, from the common start to a marker; every seed's end is a dot."""
    for loss, look in looks.items():
        seen = [records.scalar(f"{loss}/{what}") for what in ("alignment", "uniformity")]
        x, y = (np.median(curves, axis=1) for curves in seen)
        axes.plot(seen[0][-1], seen[1][-1], ".", color=look["color"], markersize=2)
        axes.plot(x, y, linewidth=0.8, markevery=[-1], **look)
    axes.plot(x[0], y[0], "o", color="white", markeredgecolor="0.3", markersize=4)
    axes.annotate(
        "start",
        (x[0], y[0]),
        xytext=(4, 3),
        textcoords="offset points",
        color="0.3",
        fontsize=6,
    )
    axes.set(title="uniformity against alignment", xlabel="alignment", ylabel="uniformity")


def _draw_over_time(axes, steps, curves, looks) -> None:
    for loss, values in curves.items():
        low, high = values.min(axis=1), values.max(axis=1)
        axes.fill_between(steps, low, high, color=looks[loss]["color"], alpha=0.12, linewidth=0)
        axes.plot(
            steps, np.median(values, axis=1), markevery=[-1], clip_on=False, zorder=3, **looks[loss]
        )
    axes.set_xscale("symlog", linthresh=1)
    axes.set(xlabel="step", xlim=(0, steps[-1]))
    axes.minorticks_off()


def _draw_pixels(axes, accuracy: float) -> None:
    axes.axhline(accuracy, color="0.5", linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
    axes.annotate(
        "pixels",
        (0.01, accuracy),
        xycoords=("axes fraction", "data"),
        xytext=(0, 2),
        textcoords="offset points",
        color="0.4",
        fontsize=6,
    )


def _name(loss: str) -> str:
    return f"{loss} *" if loss in SUPERVISED else loss


def _any_sees_labels(losses: tuple[str, ...]) -> bool:
    return any(loss in SUPERVISED for loss in losses)


# --- the table -----------------------------------------------------------------------------------


def report(records: Records) -> str:
    """The table that the command prints."""
    config, summary = Config(**records.config), records.summary
    losses = names_of(config)
    rows = [(_name(loss), summary["final"][loss]) for loss in losses]
    rows += [("at the start", summary["start"]), ("pixels", summary["pixels"])]
    title = f"after {config.steps} steps on {config.data}"
    if config.seeds > 1:
        title += f": median of {config.seeds} seeds, ± half their range"
    table = Table(title=title, title_justify="left")
    table.add_column("loss", no_wrap=True)
    for head in SEEN.values():
        table.add_column(head, justify="right", no_wrap=True)
    for name, seen in rows:
        table.add_row(name, *(_spread(seen[what]) if what in seen else "" for what in SEEN))
    starred = ["* sees the labels"] if _any_sees_labels(losses) else []
    return printed(records, table, *starred, width=120)


def _spread(values) -> str:
    """Median and half the range over seeds, to thousandths or, where it is smaller, one digit."""
    values = np.atleast_1d(np.array(values, dtype=float))
    middle = np.median(values)
    text = f"{middle:.3f}" if abs(middle) >= 0.01 or middle == 0 else f"{middle:.1e}"
    if values.size == 1:
        return text
    half = np.ptp(values) / 2
    return f"{text} ±{half:.3f}" if half >= 5e-4 or half == 0 else f"{text} ±{half:.0e}"
