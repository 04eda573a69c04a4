"""The figure of the study of trees in hyperbolic space, and the tables that its command prints."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.ticker import LogLocator, NullFormatter
from rich.table import Table

from experiments._conclusion import claims_table, printed
from experiments._tree_tradeoffs_config import Cell, Config, dims
from rlkit.plots import style
from rlkit.theory import trees
from rlkit.train.records import Records, read_json

PAPER = {
    ("smalltree", 40, 39): {
        "distortion": (2, 0.1, 0.013),
        "map": (2, 0.1, 1.0),
        "bits": (2, 0.1, 102),
        "bits, eps 1": (2, 1.0, 18),
    },
    ("phylo_tree", 344, 343): {"distortion": (2, 0.1, 0.006), "map": (2, 0.1, 1.0)},
    ("ca-CSphd", 1025, 1043): {"map": (2, 0.1, 0.991)},
    ("bio-diseasome", 516, 1188): {"map": (2, 0.1, 0.822)},
}
"""Of graphs by name, nodes, edges: dimension, eps and value of the construction, as published."""


def table_of(records: Records) -> list[tuple[Cell, dict[str, np.ndarray]]]:
    """Each embedding with what was measured of it, [s]; null in the records is infinite."""
    listed = read_json(records.folder / "cells.json")["cells"]
    found = []
    for line in records.lines:
        values = {k: np.array(v, dtype=float) for k, v in line.items() if k != "step"}
        for name in ("distortion", "worst", "bits"):
            values[name] = np.where(np.isnan(values[name]), np.inf, values[name])
        found.append((Cell(**listed[line["step"]]), values))
    return found


def summarize(records: Records) -> dict[str, Any]:
    """The graph, every embedding of the table, the claims, and the paper's numbers beside ours."""
    rows = table_of(records)
    of = read_json(records.folder / "cells.json")["of"]
    return {
        "of": of,
        "table": [
            {"method": c.method, "dim": c.dim, "length": c.length, "eps": c.eps, "bits_of": c.bits}
            | {name: np.median(value) for name, value in values.items()}
            for c, values in rows
            if c.part == "table"
        ],
        "paper": _beside_the_paper(of, rows),
        "claims": [
            {"claim": claim, "here": here, "held": held} for claim, here, held in _claims(of, rows)
        ],
    }


def _beside_the_paper(of: dict[str, Any], rows) -> list[dict[str, Any]]:
    stem = Path(of["graph"]).name.removesuffix(".gz").removesuffix(".edges")
    stem = "smalltree" if stem == "tree:3x3" else stem
    found = []
    for what, (dim, eps, value) in PAPER.get((stem, of["nodes"], of["edges"]), {}).items():
        for c, values in rows:
            if (c.method, c.dim, c.eps, c.part) == ("combinatorial", dim, eps, "table"):
                ours = float(np.median(values[what.partition(",")[0]]))
                found.append({"what": what, "eps": eps, "paper": value, "ours": ours})
    return found


def _claims(of: dict[str, Any], rows) -> list[tuple[str, str, bool]]:
    """What the paper says and what was found, as (claim, here, held)."""
    found = []
    table = [(c, values) for c, values in rows if c.part == "table"]
    for c, values in table:
        if c.eps is not None and of["is_tree"]:
            worst = float(values["worst"][0])
            found.append(
                (
                    f"D_wc at most {1 + c.eps:g} by construction, d = {c.dim}"
                    + (" (length derived here)" if c.dim > 2 else ""),
                    f"{worst:.5g}",
                    worst <= 1 + c.eps,
                )
            )
    for eps in sorted({c.eps for c, _ in table if c.eps is not None}):
        bits = {c.dim: float(v["bits"][0]) for c, v in table if c.eps == eps}
        if len(bits) > 1:
            low, high = min(bits), max(bits)
            found.append(
                (
                    f"more dimensions take fewer bits, eps = {eps:g}",
                    f"{bits[low]:.4g} (d = {low}), {bits[high]:.4g} (d = {high})",
                    bits[high] < bits[low],
                )
            )
    least = min((c.dim for c, _ in table), default=2)
    flat = {c.dim: float(v["distortion"][0]) for c, v in table if c.method == "mds"}
    curved = [
        float(np.median(v["distortion"])) for c, v in table if c.method != "mds" and c.dim == least
    ]
    if flat and curved and of["is_tree"]:
        found.append(
            (
                f"a tree fits better into H^{least} than into R^{least}",
                f"distortion {min(curved):.3g} against {flat[least]:.3g}",
                min(curved) < flat[least],
            )
        )
    return found


# --- the figure ----------------------------------------------------------------------------------

_LOOKS = {
    "combinatorial": {"color": "#0072B2", "marker": "o", "label": "construction"},
    "rsgd": {"color": "#D55E00", "marker": "s", "label": "Riemannian SGD"},
    "h_mds": {"color": "#009E73", "marker": "^", "label": "h-MDS"},
    "mds": {"color": "#777777", "marker": "D", "label": "Euclidean MDS"},
}


def figure(records: Records) -> plt.Figure:
    """Distortion over the length of edges and over bits; distortion and MAP over dimensions."""
    rows, config = table_of(records), Config(**records.config)
    of = read_json(records.folder / "cells.json")["of"]
    with style.paper():
        fig, axes = plt.subplots(2, 2, figsize=(7.0, 5.2), constrained_layout=True)
        _draw_lengths(axes[0, 0], rows, of, config)
        _draw_bits(axes[0, 1], rows)
        _draw_dimensions(axes[1, 0], rows, "distortion", np.min)
        _draw_dimensions(axes[1, 1], rows, "map", np.max)
        axes[1, 0].set(title="average distortion, best edge length")
        _plain_ticks(axes[0, 1].yaxis)
        axes[1, 1].set(title="MAP of the neighbours, best edge length", ylim=(0, 1.03))
        if of["is_weighted"]:
            axes[1, 1].text(0.5, 0.5, "not defined: edges have weights", ha="center")
        handles, labels = axes[1, 0].get_legend_handles_labels()
        if handles:
            fig.legend(handles, labels, loc="outside lower center", ncols=4)
        kind = "tree" if of["is_tree"] else "graph"
        fig.suptitle(
            f"{Path(of['graph']).name}: {kind} of {of['nodes']} nodes, {of['edges']} edges, "
            f"degree at most {of['degree']}",
            x=0.01,
            ha="left",
            fontsize=9,
        )
    return fig


def _draw_lengths(axes, rows, of, config: Config) -> None:
    """Worst-case distortion of the construction, our bound, and what the length is chosen for."""
    dim = dims(config)[0]
    curve = [(c.length, v["worst"][0]) for c, v in rows if c.part == "sweep"]
    axes.set(title=f"worst-case distortion of the construction, d = {dim}", xlabel="edge length")
    axes.set(xscale="log", yscale="log", ylabel="$D_{wc} - 1$")
    if curve:
        x, y = np.array(sorted(curve)).T
        shown = np.isfinite(y) & (y > 1)
        axes.plot(x[shown], y[shown] - 1, "o-", color="#0072B2", markersize=3, label="measured")
    if not (curve and of["is_tree"] and dim == 2):
        return
    x = np.geomspace(min(curve)[0], max(curve)[0], 200)
    if not of["is_weighted"]:
        bound = [trees.distortion_bound(t, 2 * math.pi / of["degree"]) - 1 for t in x]
        axes.plot(x, bound, "k--", linewidth=0.8, label="bound")
    aimed = [(c.length, c.eps) for c, _ in rows if c.eps and (c.part, c.dim) == ("table", 2)]
    if aimed:
        axes.plot(*np.array(aimed).T, "x", color="#D55E00", label=r"$\varepsilon$ aimed at")
    axes.legend()


def _draw_bits(axes, rows) -> None:
    lengths = sorted({c.length for c, _ in rows if c.part == "rounded"})
    for length, color in zip(lengths, style.mode_colors(len(lengths)), strict=False):
        curve = [
            (c.bits, v["distortion"][0])
            for c, v in rows
            if c.part == "rounded" and c.length == length and np.isfinite(v["distortion"][0])
        ]
        needed = [
            v["bits"][0]
            for c, v in rows
            if c.part == "table" and (c.method, c.length) == ("combinatorial", length)
        ]
        if curve:
            x, y = np.array(sorted(curve)).T
            axes.plot(x, y, ".-", color=color, markersize=3, label=f"edges {length:.3g}")
        if needed:
            axes.axvline(needed[0], color=color, linewidth=0.6, linestyle=":")
    for digits, name in ((24, "float32"), (53, "float64")):
        axes.axvline(digits, color="0.8", linewidth=0.6, zorder=0)
        axes.annotate(
            name,
            (digits, 1),
            xycoords=("data", "axes fraction"),
            xytext=(-2, -2),
            textcoords="offset points",
            rotation=90,
            va="top",
            ha="right",
            fontsize=6,
            color="0.5",
        )
    axes.set(
        title="rounded coordinates (dotted: bits asked for)",
        xlabel="bits after the binary point",
        ylabel="average distortion",
        xscale="log",
        yscale="log",
    )
    axes.xaxis.set_major_formatter("{x:g}")
    if lengths:
        axes.legend(
            loc="lower left", frameon=True, facecolor="white", edgecolor="none", framealpha=1
        )


def _plain_ticks(axis) -> None:
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def _draw_dimensions(axes, rows, what: str, best) -> None:
    for method, look in _LOOKS.items():
        dims = sorted({c.dim for c, _ in rows if c.method == method and c.part == "table"})
        if not dims:
            continue
        # The lengths chosen for some eps would need bits that the other methods have not.
        values = [
            best(
                [
                    v[what]
                    for c, v in rows
                    if (c.method, c.dim, c.part, c.eps) == (method, d, "table", None)
                ],
                axis=0,
            )
            for d in dims
        ]
        values = np.array(values)
        middle = np.median(values, axis=1)
        axes.plot(dims, middle, markersize=4, clip_on=False, zorder=3, **look)
        axes.fill_between(
            dims, values.min(1), values.max(1), color=look["color"], alpha=0.25, linewidth=0
        )
    axes.set(xlabel="dimension", xscale="log")
    drawn = [line.get_ydata() for line in axes.get_lines()]
    if what == "distortion" and drawn and np.max(drawn[0]) > 0:
        axes.set_yscale("log", nonpositive="mask")  # what is exact has no logarithm
        _plain_ticks(axes.yaxis)
    ticks = sorted({c.dim for c, _ in rows})
    axes.set_xticks(ticks, [str(t) for t in ticks])
    axes.minorticks_off()


# --- the tables ----------------------------------------------------------------------------------

_NAMES = {"combinatorial": "construction", "rsgd": "rsgd", "h_mds": "h-MDS", "mds": "MDS in R^d"}


def report(records: Records) -> str:
    """The tables that the command prints."""
    rows, summary = table_of(records), records.summary
    of = summary["of"]
    title = (
        f"{Path(of['graph']).name}: {of['nodes']} nodes, {of['edges']} edges, depth {of['depth']:g}"
    )
    table = Table(title=title, title_justify="left")
    for head in ("method", "d", "edge length", "for eps", "distortion", "D_wc", "MAP", "bits"):
        table.add_column(head, justify="left" if head == "method" else "right", no_wrap=True)
    for c, values in rows:
        if c.part == "table":
            table.add_row(
                _NAMES[c.method] + (f" ({c.bits} bits)" if c.bits not in (None, 53) else ""),
                str(c.dim),
                "" if c.length is None else f"{c.length:.5g}",
                "" if c.eps is None else f"{c.eps:g}",
                *(_spread(values[name]) for name in ("distortion", "worst", "map")),
                "" if c.method == "mds" else _spread(values["bits"]),
            )
    parts = [table, "bits: -log2(1 - |x|) of the outermost point; of seeds median ± half range"]
    if summary["paper"]:
        parts.append(_beside_paper(summary["paper"]))
    if summary["claims"]:
        rows = ((r["claim"], r["here"], "yes" if r["held"] else "NO") for r in summary["claims"])
        parts.append(claims_table(rows, ("Sala et al. 2018", "here", "held")))
    return printed(records, *parts, width=120)


def _beside_paper(rows) -> Table:
    table = Table(title="as published, d = 2", title_justify="left")
    for head in ("what", "eps", "paper", "here"):
        table.add_column(head, justify="right")
    for row in rows:
        name = row["what"].partition(",")[0]
        table.add_row(name, f"{row['eps']:g}", f"{row['paper']:g}", f"{row['ours']:.5g}")
    return table


def _spread(values: np.ndarray) -> str:
    """Median and half the range over seeds, four digits."""
    middle, half = np.median(values), np.ptp(values) / 2 if np.all(np.isfinite(values)) else 0.0
    if np.isnan(middle):
        return "-"
    text = f"{middle:.4g}" if middle < 1e4 else f"{middle:.1e}"
    return text if half < 5e-4 * abs(middle) or half == 0 else f"{text} ±{half:.1g}"
