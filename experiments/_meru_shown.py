"""The figure of the study of images and captions, and the tables that its command prints."""

import textwrap
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from rich.table import Table

from experiments._conclusion import claims_table, printed
from experiments._meru_config import KINDS, Config, dims, programs
from experiments._meru_found import RECALLS, SHOWN, VARIANTS, ZERO_SHOT, claims
from rlkit.data import scenes
from rlkit.plots import style
from rlkit.train.records import Records

_TITLES = {"clip": "CLIP", "meru": "MERU"}
_LINES = {"clip": "--", "meru": "-"}
_MARKERS = {"clip": "o", "meru": "^"}


# --- the figure ----------------------------------------------------------------------------------


def figure(records: Records) -> plt.Figure:
    """Recall, entailment and curvature over time; distances by level, zero-shot, a way to the root.

    Bands are from the least to the greatest of the seeds.
    """
    config, summary = Config(**records.config), records.summary
    with style.paper():
        fig, axes = plt.subplots(2, 3, figsize=(7.4, 4.8), constrained_layout=True)
        _draw_recall(axes[0, 0], config, records)
        _draw_entailment(axes[0, 1], config, records)
        _draw_curvature(axes[0, 2], config, records)
        _draw_levels(axes[1, 0], config, summary)
        _draw_zero_shot(axes[1, 1], config, summary)
        _draw_way(axes[1, 2], config, summary)
        handles = [
            plt.Line2D(
                [], [], color=_color(config, dim), linestyle=_LINES[kind], marker=_MARKERS[kind],
                markersize=3.5, label=f"{_TITLES[kind]}, {dim} dimensions",
            )
            for kind in KINDS
            for dim in dims(config)
        ]  # fmt: skip
        fig.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 4))
        fig.suptitle(
            f"scenes of {config.data}, {config.steps} steps, {config.seeds} seeds",
            x=0.01,
            ha="left",
            fontsize=9,
        )
    return fig


def _color(config: Config, dim: int):
    return style.mode_colors(len(dims(config)))[dims(config).index(dim)]


def _over_time(axes, config: Config, records: Records, curves: np.ndarray, kinds) -> None:
    """Curves [T s p]."""
    for i, (kind, dim) in enumerate(programs(config)):
        if kind in kinds:
            style.band(axes, records.steps, curves[:, :, i], color=_color(config, dim))
            axes.lines[-1].set_linestyle(_LINES[kind])
    axes.set(xlabel="step", xlim=(0, records.steps[-1]))


def _draw_recall(axes, config: Config, records: Records) -> None:
    recall = 100 * records.array("recall")[..., [0, 2]].mean(axis=-1)
    _over_time(axes, config, records, recall, KINDS)
    axes.set(title="recall@1, both ways", ylabel=f"% of {config.scenes} held-out scenes")
    axes.set_ylim(bottom=0)


def _draw_entailment(axes, config: Config, records: Records) -> None:
    _over_time(axes, config, records, records.array("entailment"), ("meru",))
    axes.set(title="entailment loss, held out", ylabel="radians outside of the cone")
    axes.set_ylim(bottom=0)


def _draw_curvature(axes, config: Config, records: Records) -> None:
    _over_time(axes, config, records, records.array("curvature"), ("meru",))
    axes.set(title="learned curvature", ylabel="c", yscale="log", ylim=(0.09, 11))
    axes.set_yticks([0.1, 1, 10], ["0.1", "1", "10"])
    for limit in (0.1, 10):
        axes.axhline(limit, color="0.6", linewidth=0.8, linestyle=":", zorder=1)


def _draw_levels(axes, config: Config, summary: dict[str, Any]) -> None:
    for kind, dim in programs(config):
        radius = np.array(summary["models"][str(dim)][kind]["radius_by_level"])
        axes.plot(
            radius / radius[-1], color=_color(config, dim), linestyle=_LINES[kind],
            marker=_MARKERS[kind], markersize=3.5,
        )  # fmt: skip
    axes.axvline(len(scenes.LEVELS) - 0.5, color="0.7", linewidth=0.6)
    names = [*scenes.LEVELS, "image"]
    axes.set_xticks(range(len(names)), names, fontsize=6, rotation=30, ha="right")
    axes.set(title="distance from the root", ylabel="share of the images'")
    axes.set_ylim(bottom=0)


def _draw_zero_shot(axes, config: Config, summary: dict[str, Any]) -> None:
    count = len(programs(config))
    for i, (kind, dim) in enumerate(programs(config)):
        values = summary["models"][str(dim)][kind]["zero_shot"]
        at = np.arange(len(ZERO_SHOT)) + 0.6 * ((i + 0.5) / count - 0.5)
        axes.plot(at, values, _MARKERS[kind], color=_color(config, dim), markersize=4)
    for x, name in enumerate(ZERO_SHOT):
        chance = summary["chance"][name]
        axes.plot([x - 0.35, x + 0.35], [chance, chance], ":", color="0.5", linewidth=0.9)
    axes.set_xticks(range(len(ZERO_SHOT)), ZERO_SHOT)
    axes.set(title="zero-shot (dots: chance)", ylabel="accuracy", ylim=(0, 1.03))


def _draw_way(axes, config: Config, summary: dict[str, Any]) -> None:
    """One image's, of the model with the most dimensions."""
    of = summary["models"][str(max(dims(config)))]["meru"]
    axes.axis("off")
    axes.set_title(f"MERU, d={max(dims(config))}: a way to the root")
    way = min(range(len(of["told"])), key=lambda i: len(summary["scenes"][i]))
    lines = [f"scene: {summary['scenes'][way]}", *of["told"][way]]
    text = "\n".join(
        textwrap.fill(line, 46, initial_indent="" if i == 0 else "- ", subsequent_indent="   ")
        for i, line in enumerate(lines)
    )
    axes.text(0, 1, text, fontsize=5.5, va="top", linespacing=1.35, transform=axes.transAxes)


# --- the tables ----------------------------------------------------------------------------------


def report(records: Records) -> str:
    """The tables that the command prints."""
    config, summary = Config(**records.config), records.summary
    return printed(
        records,
        _quality_table(config, summary),
        _radius_table(config, summary),
        _scaling_table(config, summary),
        _ways(config, summary),
        claims_table(claims(summary)),
    )


def _table(title: str, heads) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("model", no_wrap=True)
    for head in heads:
        table.add_column(head, justify="right")
    return table


def _models(config: Config, summary: dict[str, Any]):
    """Name and findings of each model."""
    for kind, dim in programs(config):
        yield f"{_TITLES[kind]}, d={dim}", kind, summary["models"][str(dim)][kind]


def _quality_table(config: Config, summary: dict[str, Any]) -> Table:
    out = _table(
        f"held-out scenes of {config.data}: recall in % of {config.scenes}, zero-shot accuracy in "
        f"%; means over {config.seeds} seeds",
        [*RECALLS, *(f"{n} (chance {100 * summary['chance'][n]:.0f})" for n in ZERO_SHOT)],
    )
    for name, _, of in _models(config, summary):
        values = [*of["recall"], *of["zero_shot"]]
        out.add_row(name, *(f"{100 * value:.1f}" for value in values))
    return out


def _radius_table(config: Config, summary: dict[str, Any]) -> Table:
    out = _table(
        "distance from the root: the origin (MERU), or one minus the cosine to the mean (CLIP)",
        [*scenes.LEVELS, "image", "Spearman [95 %]", "general one nearer", "c"],
    )
    for name, kind, of in _models(config, summary):
        order = of["generality"]
        low, high = order["interval"]
        out.add_row(
            name,
            *(f"{radius:.3f}" for radius in of["radius_by_level"]),
            f"{order['spearman']:.2f} [{low:.2f}, {high:.2f}]",
            f"{of['nearer']:.0%}",
            f"{np.mean(of['curvature']):.2f}" if kind == "meru" else "",
        )
    return out


def _scaling_table(config: Config, summary: dict[str, Any]) -> Table:
    out = Table(
        title=f"MERU after training, {config.adapt_steps} steps of what may change: the radius "
        f"(H4G, blocks of {config.block}), the temperature",
        title_justify="left",
    )
    heads = ("model", "what", "loss", "image to text @1", "text to image @1", "images' radius",
             "texts' radius")  # fmt: skip
    for i, head in enumerate(heads):
        out.add_column(head, justify="left" if i < 2 else "right")
    for name, kind, of in _models(config, summary):
        for variant in VARIANTS if kind == "meru" else ():
            found = of["scaled"][variant]
            recall = [f"{100 * found['recall'][i]:.1f}" for i in (0, 2)]
            radii = [f"{radius:.3f}" for radius in found["radius"]]
            out.add_row(name, variant, f"{found['contrast']:.3f}", *recall, *radii)
    return out


def _ways(config: Config, summary: dict[str, Any]) -> str:
    """What images meet on their way to the root, and how much of it is true."""
    lines = []
    for name, _, of in _models(config, summary):
        way = of["ways"]
        lines.append(
            f"{name}: on the way to the root {way['true']:.0%} of the captions met are true, "
            f"{way['rungs']:.1f} different true ones a scene"
        )
    largest = str(max(dims(config)))
    for i in range(min(SHOWN, len(summary["scenes"]))):
        lines.append(f"scene: {summary['scenes'][i]}")
        for kind in KINDS:
            told = summary["models"][largest][kind]["told"][i]
            lines.append(f"  {_TITLES[kind]}, d={largest}: " + "; ".join(told))
    return "\n".join(lines)
