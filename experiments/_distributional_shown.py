"""The figure of the study of retrieval by Gaussians, and the tables that its command prints."""

from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from rich.table import Table

from experiments._conclusion import claims_table, printed
from experiments._distributional_config import Config
from experiments._distributional_exact import SEARCHES
from experiments._distributional_found import PREDICTORS, queries, signed
from experiments._distributional_trained import DEPTH, SCORERS
from experiments._numbers import bounds, number, ranged
from rlkit.plots import style
from rlkit.train.records import Records

# Okabe and Ito's, which the colour-blind can tell apart.
_BLUE, _RED, _GREEN, _PINK, _ORANGE, _SKY = (
    *("#0072B2", "#D55E00", "#009E73"),
    *("#CC79A7", "#E69F00", "#56B4E9"),
)
_SEARCHES = {
    "exact, float64": (_BLUE, "o", "-"),
    "exact, float32": (_SKY, "x", "--"),
    "printed, float32": (_RED, "s", "-"),
    "distance": (_GREEN, "^", ":"),
    "dot": (_PINK, "v", ":"),
}
_SCORERS = {
    "KL": (_BLUE, "-"),
    "KL as printed": (_RED, "-"),
    "its means, distance": (_GREEN, "--"),
    "its means, dot": (_PINK, "--"),
    "KL, both ways": (_SKY, "-"),
    "distance": (_GREEN, ":"),
    "dot": (_PINK, ":"),
    "wide dot": ("0.3", ":"),
}
_BINS = 10
_PREDICTED = {
    "Gaussian/variance": ("variances", _BLUE, "o"),
    "both ways/variance": ("variances, both ways", _SKY, "s"),
    "dot/norm": ("minus dot's norm", _PINK, "v"),
    "area": ("share covered", "0.3", "^"),
}


# --- the figure ----------------------------------------------------------------------------------


def figure(records: Records) -> plt.Figure:
    """Overlap against dimension, retrieval over time and at the end, and what variances tell."""
    config, summary = Config(**records.config), records.summary
    known = queries(records)
    with style.paper():
        fig, axes = plt.subplots(2, 2, figsize=(7.4, 5.4), constrained_layout=True)
        _draw_overlaps(axes[0, 0], config, summary)
        _draw_over_time(axes[0, 1], records)
        _draw_final(axes[1, 0], config, summary)
        _draw_predicted(axes[1, 1], known, summary)
        fig.suptitle(
            f"{config.gaussians} random Gaussians; {config.data} found by what is left of them, "
            f"{config.dim} dimensions, {config.seeds} seeds",
            x=0.01,
            ha="left",
            fontsize=9,
        )
    return fig


def _draw_overlaps(axes, config: Config, summary: dict[str, Any]) -> None:
    random = summary["random"]
    for name, (color, marker, line) in _SEARCHES.items():
        values = np.array(random["overlap"][name], float)[:, -1]
        label = {"distance": "means, distance", "dot": "means, dot"}.get(name, name)
        axes.plot(
            random["dims"], values, line, color=color, marker=marker, markersize=4, label=label
        )
    axes.set_xscale("log", base=2)
    axes.set_xticks(random["dims"], [str(dim) for dim in random["dims"]])
    axes.minorticks_off()
    axes.set(
        title=f"random Gaussians: the {random['tops'][-1]} nearest",
        xlabel="dimension",
        ylabel="share found by the index",
        ylim=(0, 1.05),
    )
    axes.legend(fontsize=6, loc="lower center", ncols=2, columnspacing=1, handlelength=1.8)


def _draw_over_time(axes, records: Records) -> None:
    for scorer, (color, line) in _SCORERS.items():
        values = records.scalar(f"{scorer}/mrr")
        low, middle, high = values.min(axis=1), np.median(values, axis=1), values.max(axis=1)
        axes.fill_between(records.steps, low, high, color=color, alpha=0.12, linewidth=0)
        axes.plot(records.steps, middle, color=color, linestyle=line, label=scorer)
    axes.set_xscale("symlog", linthresh=1)
    axes.minorticks_off()
    axes.set(
        title=f"retrieval in training, MRR@{DEPTH} (median, range)",
        xlabel="step",
        xlim=(0, records.steps[-1]),
        ylim=(0, None),
    )
    axes.legend(fontsize=6, loc="upper left")


def _draw_final(axes, config: Config, summary: dict[str, Any]) -> None:
    for y, scorer in enumerate(SCORERS):
        color, _ = _SCORERS[scorer]
        for what, marker, filled in (("mrr", "o", True), ("ndcg", "s", False)):
            values = np.array(summary["retrieval"][scorer][what], float)
            axes.plot([values.min(), values.max()], [y, y], color=color, linewidth=1)
            axes.plot(
                values.mean(), y, marker, color=color, markersize=4,
                markerfacecolor=color if filled else "white",
            )  # fmt: skip
    for marker, fill, label in (("o", "0.3", f"MRR@{DEPTH}"), ("s", "white", f"nDCG@{DEPTH}")):
        axes.plot([], [], marker, color="0.3", markersize=4, markerfacecolor=fill, label=label)
    axes.set_yticks(range(len(SCORERS)), [_with_size(config, name) for name in SCORERS], fontsize=6)
    axes.invert_yaxis()
    axes.grid(axis="x", linewidth=0.3, color="0.88")
    axes.set(
        title="at the end (mean, range over seeds)",
        xlabel="score (beside the names: numbers of a document)",
    )
    axes.set_xlim(0, None)
    axes.legend(fontsize=6, loc="lower left")


def _with_size(config: Config, scorer: str) -> str:
    """The scorer, and how many numbers of a document its index holds."""
    return f"{scorer} ({_size(config, scorer)})"


def _size(config: Config, scorer: str) -> int:
    k = config.dim
    return {
        "KL as printed": 2 * k + 2,
        "its means, dot": k,
        "its means, distance": k + 1,
        "distance": k + 1,
        "dot": k,
    }.get(scorer, 3 * k + 1)


def _draw_predicted(axes, known: dict[str, np.ndarray], summary: dict[str, Any]) -> None:
    """Mean reciprocal rank of queries from the surest tenth to the least sure."""
    for name, (label, color, marker) in _PREDICTED.items():
        u = signed(known, name)
        reciprocal = 1 / known[f"rank/{PREDICTORS[name][1]}"]
        curves = []
        for x, y in zip(u, reciprocal, strict=True):
            parts = np.array_split(y[np.argsort(x, kind="stable")], _BINS)
            curves.append([part.mean() for part in parts])
        rho = number(summary["prediction"][name]["spearman"])
        at = (np.arange(_BINS) + 0.5) / _BINS
        style.band(axes, at, np.array(curves).T, color=color)
        axes.plot(
            at, np.median(curves, axis=0), marker, color=color, markersize=3,
            label=rf"{label}, $\rho$ = {rho}",
        )  # fmt: skip
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.3 * (high - low))  # room for the legend
    axes.set_yticks([tick for tick in axes.get_yticks() if 0 <= tick <= 1])
    axes.set(
        title="queries by what should tell how unsure they are",
        xlabel="from the surest query to the least sure",
        ylabel="mean reciprocal rank",
        xlim=(0, 1),
    )
    axes.legend(
        fontsize=6, loc="upper center", ncols=2, columnspacing=0.5, handlelength=1, borderaxespad=0
    )


# --- the tables ----------------------------------------------------------------------------------


def report(records: Records) -> str:
    """The tables that the command prints."""
    config, summary = Config(**records.config), records.summary
    return printed(
        records,
        _overlap_table(config, summary),
        _retrieval_table(config, summary),
        _prediction_table(summary),
        claims_table(summary["claims"]),
    )


def _overlap_table(config: Config, summary: dict[str, Any]) -> Table:
    random = summary["random"]
    tops = ", ".join(str(top) for top in random["tops"])
    out = Table(
        title=f"what an index finds of the first {tops} documents by divergence: "
        f"{config.gaussians} random Gaussians, {config.asked} queries, {config.seeds} draws",
        title_justify="left",
        caption="same order: share of queries; farther: the largest error, as a share of KL",
        caption_justify="left",
    )
    out.add_column("index", no_wrap=True)
    for dim in random["dims"]:
        out.add_column(f"d = {dim}", justify="right", no_wrap=True)
    out.add_column("same order", justify="right")
    out.add_column("farther", justify="right")
    for name in SEARCHES:
        overlaps = random["overlap"][name]
        out.add_row(
            {"distance": "means, distance", "dot": "means, dot"}.get(name, name),
            *(", ".join(f"{value:.2f}" for value in of) for of in overlaps),
            f"{np.mean(random['same'][name]):.3f}",
            f"{np.max(random['lost'][name]):.1e}",
        )
    return out


def _retrieval_table(config: Config, summary: dict[str, Any]) -> Table:
    out = Table(
        title=f"{config.data} found by what is left of them: mean of {config.seeds} seeds ± half "
        "their range",
        title_justify="left",
    )
    for i, head in enumerate(("scores", "trained", "numbers", f"MRR@{DEPTH}", f"nDCG@{DEPTH}")):
        out.add_column(head, justify="right" if i > 1 else "left", no_wrap=True)
    for scorer, model in SCORERS.items():
        of = summary["retrieval"][scorer]
        out.add_row(
            scorer, model, str(_size(config, scorer)), ranged(of["mrr"]), ranged(of["ndcg"])
        )
    return out


def _prediction_table(summary: dict[str, Any]) -> Table:
    out = Table(
        title="does a query know how well it is answered? Spearman with the reciprocal rank "
        "[95 %]: below 0 if it does",
        title_justify="left",
    )
    for i, head in enumerate(("unsure by", "search", "Spearman", "with the share covered")):
        out.add_column(head, justify="right" if i > 1 else "left", no_wrap=True)
    for name, (title, scorer) in PREDICTORS.items():
        of = summary["prediction"][name]
        out.add_row(
            title,
            scorer,
            f"{number(of['spearman'])} {bounds(of['interval'])}",
            number(of["with_area"]),
        )
    return out
