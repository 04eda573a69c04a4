"""What the study of Poincare embeddings shows: summary, tables, figure, and files for others."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import patheffects
from matplotlib import pyplot as plt
from rich.table import Table
from scipy import sparse

from experiments._conclusion import claims_table, printed
from experiments._poincare_config import Config, Program, programs
from experiments._poincare_data import Problem
from rlkit.plots import style
from rlkit.train import app
from rlkit.train.records import Records, read_arrays, read_json

PAPER = {
    "reconstruction": {
        ("euclidean", 5): (3542.3, 0.024),
        ("euclidean", 10): (2286.9, 0.059),
        ("poincare", 5): (4.9, 0.823),
        ("poincare", 10): (4.02, 0.851),
    },
    "link_prediction": {
        ("euclidean", 5): (3311.1, 0.024),
        ("euclidean", 10): (2199.5, 0.059),
        ("poincare", 5): (5.7, 0.825),
        ("poincare", 10): (4.3, 0.852),
    },
}
"""Mean rank and MAP of Nickel and Kiela 2017, Table 1: WordNet's 82,115 nouns."""

HYPERBOLIC = ("poincare", "lorentz")

_COLORS = {
    "poincare": "#0072B2",
    "lorentz": "#56B4E9",
    "euclidean": "#D55E00",
    "squared_euclidean": "#E69F00",
    "sphere": "#009E73",
    "product": "#CC79A7",
}
_MARKERS = dict(zip(_COLORS, "os^vDP", strict=True))
_TITLES = {"reconstruction": "reconstruction", "link_prediction": "link prediction"}
LABELS = 16
LARGEST_DRAWN = 5000
"""Nodes in the picture."""


# --- the summary ---------------------------------------------------------------------------------


def summarize(records: Records) -> dict[str, Any]:
    """The measures of the last epoch, [s] each, and what they say about the paper's claims."""
    config = Config(**records.config)
    rows = []
    for p in programs(config):
        ends = {
            name: records.scalar(f"{name} of {p.name}")[-1].tolist()
            for name in ("map", "mean_rank", "depth", "loss")
        }
        rows.append(dataclasses.asdict(p) | ends)
    return {
        "hierarchy": read_json(records.folder / "hierarchy.json"),
        "programs": rows,
        "claims": _claims(rows),
    }


def _claims(every: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    rows = [row for row in every if row["main"]]
    found = []
    least = min(row["dim"] for row in rows)
    of = {
        (row["task"], row["manifold"], row["dim"]): {k: _mean(row[k]) for k in ("map", "depth")}
        for row in rows
    }
    for task in dict.fromkeys(row["task"] for row in rows):
        here = {name: of[task, name, least]["map"] for name in _COLORS if (task, name, least) in of}
        curved = [name for name in HYPERBOLIC if name in here]
        if curved and "euclidean" in here:
            best = max(curved, key=here.get)
            found.append(
                {
                    "claim": f"hyperbolic MAP above Euclidean, {_TITLES[task]}, d = {least}",
                    "ours": f"{here[best]:.3f} ({best}), {here['euclidean']:.3f}",
                    "held": here[best] > here["euclidean"],
                }
            )
        if "lorentz" in here and "poincare" in here:
            found.append(
                {
                    "claim": f"hyperboloid no worse than ball, {_TITLES[task]}, d = {least}",
                    "ours": f"{here['lorentz']:.3f}, {here['poincare']:.3f}",
                    "held": here["lorentz"] > here["poincare"] - 0.01,
                }
            )
    depths = [row["depth"] for key, row in of.items() if key[1] in HYPERBOLIC]
    if depths and all(np.isfinite(depths)):
        found.append(
            {
                "claim": "deeper nodes are farther out (Spearman, hyperbolic spaces)",
                "ours": f"{min(depths):.2f} to {max(depths):.2f}",
                "held": min(depths) > 0,
            }
        )
    return found + _burn_in_claims(every)


def _burn_in_claims(every: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of each curved space: MAP after the first burn-in of the flag, and after each other one."""
    found = []
    for main in every:
        if not main["main"] or main["manifold"] not in HYPERBOLIC:
            continue
        same = ("task", "manifold", "dim")
        others = [r for r in every if not r["main"] and all(r[k] == main[k] for k in same)]
        for other in others:
            ours, theirs = _mean(main["map"]), _mean(other["map"])
            found.append(
                {
                    "claim": f"burn-in of {main['burn_in']} epochs better than of "
                    f"{other['burn_in']}, {_TITLES[main['task']]}, {main['manifold']}, "
                    f"d = {main['dim']}",
                    "ours": f"{ours:.3f}, {theirs:.3f}",
                    "held": ours > theirs,
                }
            )
    return found


def _mean(values: Sequence[float | None]) -> float:
    return float(np.mean(np.array(values, dtype=float)))


# --- the figure ----------------------------------------------------------------------------------


def figure(records: Records, data: Problem) -> plt.Figure:
    """The plane with names, where one was trained; MAP over dimensions, and over epochs."""
    config = Config(**records.config)
    drawn = _drawn(config, data)
    with style.paper():
        if drawn is None:
            fig, (left, right) = plt.subplots(1, 2, figsize=(6.6, 2.7), constrained_layout=True)
        else:
            fig = plt.figure(figsize=(7.4, 4.6), constrained_layout=True)
            grid = fig.add_gridspec(2, 2, width_ratios=(1.7, 1))
            _draw_plane(fig.add_subplot(grid[:, 0]), records.folder, data, drawn)
            left, right = fig.add_subplot(grid[0, 1]), fig.add_subplot(grid[1, 1])
        _draw_dimensions(left, [row for row in records.summary["programs"] if row["main"]])
        _draw_epochs(right, config, records)
        handles = [
            plt.Line2D([], [], color=_COLORS[name], marker=_MARKERS[name], markersize=4, label=name)
            for name in dict.fromkeys(p.manifold for p in programs(config))
        ]
        tasks = dict.fromkeys(p.task for p in programs(config))
        if len(tasks) > 1:
            handles += [
                plt.Line2D([], [], color="0.4", linestyle=_line(task), label=_TITLES[task])
                for task in tasks
            ]
        fig.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 5))
        fig.suptitle(
            f"{Path(data.graph.where).name}: {len(data.names)} nodes, {len(data.pairs)} pairs, "
            f"{config.seeds} seeds",
            x=0.01,
            ha="left",
            fontsize=9,
        )
    return fig


def _line(task: str) -> str:
    return "-" if task == "reconstruction" else "--"


def _drawn(config: Config, data: Problem) -> Program | None:
    """Which plane: the disc before others."""
    kinds = (*HYPERBOLIC, "euclidean")
    planes = [p for p in programs(config) if p.dim == 2 and p.manifold in kinds]
    small = len(data.names) <= LARGEST_DRAWN
    return min(planes, key=lambda p: kinds.index(p.manifold)) if planes and small else None


def _draw_plane(axes, folder: Path, data: Problem, program: Program) -> None:
    """The first seed: nodes, edges to the parents, and the names of those with most below them."""
    points = read_arrays(folder / "points.npz")[program.name][0]
    if program.manifold == "lorentz":
        points = points[:, 1:] / (1 + points[:, :1])
    if program.manifold in HYPERBOLIC:
        axes.add_patch(plt.Circle((0, 0), 1, fill=False, color="0.6", linewidth=0.6))
    parents = _parents(data)
    axes.plot(
        *(points[parents].transpose(2, 1, 0)), color=_COLORS[program.manifold], linewidth=0.25,
        alpha=0.35, zorder=1,
    )  # fmt: skip
    below = np.bincount(data.pairs[:, 1], minlength=len(points))
    leaves = below == 0
    axes.plot(*points[leaves].T, ".", color="0.55", markersize=2, markeredgewidth=0, zorder=2)
    axes.plot(*points[~leaves].T, ".", color="0.1", markersize=4, markeredgewidth=0, zorder=3)
    span = 2.0 if program.manifold in HYPERBOLIC else float(np.ptp(points, axis=0).max())
    placed: list[tuple[float, float, float]] = []
    for node in np.argsort(-below, kind="stable"):
        if len(placed) == LABELS or below[node] == 0:
            break
        name = _short(data.names[node])
        x, y = points[node]
        width = 0.0145 * span * len(name)
        if any(abs(x - a) < (width + w) / 2 and abs(y - b) < 0.04 * span for a, b, w in placed):
            continue
        placed.append((x, y, width))
        axes.annotate(
            name, (x, y), fontsize=5.5, ha="center", va="bottom", zorder=4,
            xytext=(0, 1.5), textcoords="offset points",
            path_effects=[patheffects.withStroke(linewidth=1.4, foreground="white")],
        )  # fmt: skip
    axes.set_aspect("equal")
    axes.axis("off")
    axes.set_title(f"{program.manifold}, {_TITLES[program.task]}, d = 2, one seed")


def _short(name: str) -> str:
    """Without the module, or the number of the sense."""
    head, *rest = name.split(".")
    if rest and rest[-1].isdigit():
        return head
    return name.rsplit(".", 1)[-1]


def _parents(data: Problem) -> np.ndarray:
    """The pairs that no other pairs imply."""
    n, (u, v) = len(data.names), data.pairs.T
    above = sparse.csr_array((np.ones(len(u), np.int32), (u, v)), shape=(n, n))
    implied = (above @ above).multiply(above).tocsr()
    direct = (above - above.multiply(implied > 0)).tocoo()
    kept = direct.data > 0
    return np.stack([direct.coords[0][kept], direct.coords[1][kept]], axis=1)


def _draw_dimensions(axes, rows: Sequence[Mapping[str, Any]]) -> None:
    for task in dict.fromkeys(row["task"] for row in rows):
        for manifold in dict.fromkeys(row["manifold"] for row in rows):
            own = sorted(
                (r for r in rows if (r["task"], r["manifold"]) == (task, manifold)),
                key=lambda r: r["dim"],
            )
            dims = [row["dim"] for row in own]
            values = np.array([row["map"] for row in own], dtype=float)
            color, line = _COLORS[manifold], _line(task)
            axes.plot(
                dims, values.mean(1), line, color=color, marker=_MARKERS[manifold], markersize=3.5
            )
            axes.fill_between(dims, values.min(1), values.max(1), color=color, alpha=0.2, lw=0)
    axes.set_xscale("log")
    dims = sorted({row["dim"] for row in rows})
    axes.set_xticks(dims, [str(d) for d in dims])
    axes.minorticks_off()
    axes.set(title="MAP (mean and range of seeds)", xlabel="dimension", ylim=(0, 1.02))


def _draw_epochs(axes, config: Config, records: Records) -> None:
    least = min(p.dim for p in programs(config))
    for p in programs(config):
        if p.dim == least:
            curve = records.scalar(f"map of {p.name}").mean(axis=1)
            axes.plot(
                records.steps, curve, _line(p.task), color=_COLORS[p.manifold],
                alpha=1 if p.main else 0.45, linewidth=1.5 if p.main else 0.8,
            )  # fmt: skip
    burn_ins = {p.burn_in: p.main for p in programs(config)}
    for end in filter(None, burn_ins):
        at = min(end, config.epochs)
        axes.axvline(at, color="0.6", linewidth=0.7, linestyle=":")
        axes.annotate(
            "burn-in", (at, 1), fontsize=6, color="0.4",
            xytext=(2, -1), textcoords="offset points", va="top",
        )  # fmt: skip
    title, others = f"MAP, d = {least}", [str(b) for b, main in burn_ins.items() if not main]
    if others:
        title += f" (faint: burn-in {', '.join(others)})"
    axes.set(title=title, xlabel="epoch", ylim=(0, 1.02), xlim=(0, config.epochs))


# --- the tables ----------------------------------------------------------------------------------


def report(records: Records) -> str:
    """The tables that the command prints."""
    config, summary = Config(**records.config), records.summary
    about = summary["hierarchy"]
    looked_at = "all" if about["all_looked_at"] else f"a random {about['looked_at']}"
    return printed(
        records,
        *(
            _table(config, task, summary)
            for task in dict.fromkeys(p.task for p in programs(config))
        ),
        claims_table(
            ((r["claim"], r["ours"], "yes" if r["held"] else "NO") for r in summary["claims"]),
            ("claim", "here", "held here"),
        ),
        f"{about['where']}: {about['nodes']} nodes, {about['pairs']} pairs, {about['depth']} "
        f"deep; rankings of {looked_at} nodes with a pair",
        width=110,
    )


def _table(config: Config, task: str, summary: Mapping[str, Any]) -> Table:
    about = summary["hierarchy"]
    out = Table(
        title=f"{_TITLES[task]}: {about['ranked'][task]} pairs ranked, {about['trained'][task]} "
        f"trained on for {config.epochs} epochs; {config.seeds} seeds",
        title_justify="left",
        caption="paper: Nickel and Kiela 2017, Table 1, on WordNet's nouns, mean rank / MAP",
        caption_justify="left",
    )
    heads = ("manifold", "d", "burn-in", "mean rank", "MAP", "depth and radius", "paper")
    for head in heads:
        out.add_column(head, justify="left" if head == "manifold" else "right", no_wrap=True)
    for row in summary["programs"]:
        if row["task"] != task:
            continue
        paper = PAPER[task].get((row["manifold"], row["dim"]))
        out.add_row(
            row["manifold"],
            str(row["dim"]),
            str(row["burn_in"]),
            _spread(row["mean_rank"], 2),
            _spread(row["map"], 3),
            _spread(row["depth"], 2),
            "" if paper is None else f"{paper[0]:g} / {paper[1]:.3f}",
        )
    return out


def _spread(values: Sequence[float | None], digits: int) -> str:
    values = np.array(values, dtype=float)
    mean = f"{values.mean():.{digits}f}"
    return mean if len(values) == 1 else f"{mean} +- {values.std(ddof=1):.{digits}f}"


# --- files for others ----------------------------------------------------------------------------


def export(opened: app.Run, names: Sequence[str], tables: Mapping[str, np.ndarray]) -> None:
    """`points.npz`, [s n d] for each program with the names, and the first seed as `vectors/*.txt`.

    These are word2vec's text format (a line `n d`, then a line `name x y ...` for each node), with
    `_` for spaces in names; points are those of the manifold (on the hyperboloid, time first).
    """
    opened.save_arrays("points", {"names": np.array(names), **tables})
    folder = opened.folder / "vectors"
    folder.mkdir(exist_ok=True)
    for name, points in tables.items():
        lines = [f"{points.shape[1]} {points.shape[2]}"]
        for node, x in zip(names, points[0].tolist(), strict=True):
            lines.append(" ".join([node.replace(" ", "_"), *(f"{value:.9g}" for value in x)]))
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")
