"""The figure of the study of isotropy, and the tables that its command prints."""

from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.ticker import NullFormatter
from rich.table import Table

from experiments import _isotropy_design as design
from experiments import _isotropy_hubs as hubs
from experiments import _isotropy_truncated as truncated
from experiments import _isotropy_words as words
from experiments._conclusion import claims_table, printed
from experiments._isotropy_config import Config
from experiments._isotropy_found import cut, number
from rlkit.plots import style
from rlkit.train.records import Records

# Okabe and Ito's colours, which the colour-blind can tell apart; who prints in grey has the marks.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9")
_MARKERS = ("o", "^", "s", "D", "v")
_LINES = {"first": "-", "random": ":", "pca": "--"}


def _look(i: int) -> dict[str, Any]:
    return {"color": _COLORS[i % len(_COLORS)], "marker": _MARKERS[i % len(_MARKERS)]}


# --- the figure ----------------------------------------------------------------------------------


def figure(records: Records) -> plt.Figure:
    """A panel for each part that was run, from the summary alone."""
    config, summary = Config(**records.config), records.summary
    draw = {
        "design": _draw_design,
        "whitening": _draw_whitening,
        "hubness": _draw_hubness,
        "truncation": _draw_truncation,
    }
    there = [part for part in draw if part in summary]
    columns = min(len(there), 2)
    rows = -(-len(there) // columns)
    with style.paper():
        size = (3.7 * columns, 2.9 * rows)
        fig, axes = plt.subplots(
            rows, columns, figsize=size, constrained_layout=True, squeeze=False
        )
        for panel, part in zip(axes.flat, there, strict=False):
            draw[part](panel, summary[part])
        for panel in axes.flat[len(there) :]:
            panel.set_axis_off()
        source = config.embeddings if config.embeddings is not None else config.data
        fig.suptitle(
            f"{source.rsplit('/', 1)[-1]}, {config.seeds} seed{'s' * (config.seeds > 1)} "
            "(means; bars: range)",
            x=0.01,
            ha="left",
            fontsize=9,
        )
    return fig


def _draw_design(axes, found: dict[str, Any]) -> None:
    """Scores by tests: what was measured, and by its colour whether it passes."""
    for i, tests in enumerate(found["scores"].values()):
        for j, of in enumerate(tests.values()):
            color = "#CFE8DC" if of["passed"] else "#F6D3C2"
            axes.add_patch(plt.Rectangle((j - 0.5, i - 0.5), 1, 1, facecolor=color, edgecolor="w"))
            text = f"{of['measured']:.3f}" + ("" if of["passed"] else "\nfails")
            axes.text(j, i, text, ha="center", va="center", fontsize=6)
    axes.set(xlim=(-0.5, len(design.TESTS) - 0.5), ylim=(len(design.SCORES) - 0.5, -0.5))
    names = [name.replace(" ", "\n").replace("-", "-\n") for name in design.TESTS.values()]
    axes.set_xticks(range(len(names)), names, fontsize=6)
    axes.set_yticks(range(len(design.SCORES)), design.SCORES.values(), fontsize=7)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_title("design tests (green: passed)")


def _span(values) -> tuple[float, float, float]:
    values = np.array(values, float)
    return float(values.mean()), float(values.min()), float(values.max())


def _categories(axes, series: dict[str, list], names: list[str]) -> None:
    """Each series a marker with its range in every category, a little apart."""
    for i, (label, columns) in enumerate(series.items()):
        at = np.arange(len(names)) + 0.16 * (i - (len(series) - 1) / 2)
        spans = np.array([_span(values) for values in columns])
        for x, (_, low, high) in zip(at, spans, strict=True):
            axes.plot([x, x], [low, high], color=_look(i)["color"], linewidth=1)
        axes.plot(at, spans[:, 0], linestyle="", markersize=4, label=label, **_look(i))
    axes.set_xticks(range(len(names)), names, fontsize=6, rotation=35, ha="right")
    axes.set_xlim(-0.6, len(names) - 0.4)
    axes.grid(axis="y", linewidth=0.3, color="0.88")


def _draw_whitening(axes, found: dict[str, Any]) -> None:
    has = all("recall" in of["raw"] for name, of in found.items() if name != "word2vec")
    quantity = "recall" if has else "norm"
    series = {
        name: [of[method][quantity] for method in words.METHODS]
        for name, of in found.items()
        if quantity in of["raw"] and (has or name != "word2vec")
    }
    if has:
        axes.set(title="halves of a passage find each other", ylabel="recall@1")
        series = {name: columns for name, columns in series.items() if name != "word2vec"}
    else:
        axes.set(title="word norms against frequency", ylabel="correlation with -log p")
    _categories(axes, series, [name.replace(", ", ",\n") for name in words.METHODS.values()])
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.2 * (high - low))  # room for the legend
    axes.legend(fontsize=6, loc="upper left", ncols=3, columnspacing=0.8, handletextpad=0.2)


def _draw_hubness(axes, found: dict[str, Any]) -> None:
    series = {
        name: [of[method]["skewness"] for method in hubs.METHODS]
        for name, of in found["sources"].items()
    }
    names = [name.replace(" + ", " +\n").replace(", ", ",\n") for name in hubs.METHODS.values()]
    axes.set_yscale("symlog", linthresh=1)  # first, for the limits are found on the scale
    _categories(axes, series, names)
    axes.axhline(0, color="0.5", linewidth=0.6, zorder=1)
    axes.yaxis.set_major_formatter("{x:g}")
    ticks = [t for t in (-1, 0, 1, 2, 5, 10, 20) if axes.get_ylim()[0] <= t <= axes.get_ylim()[1]]
    axes.set_yticks(ticks)
    axes.minorticks_off()
    axes.set(title="hubs among the nearest neighbours", ylabel="skewness of the k-occurrence")
    axes.legend(fontsize=6, loc="upper right")


def _draw_truncation(axes, found: dict[str, Any]) -> None:
    """Retained accuracy; without labels, the intrinsic dimension."""
    quantity = "retained" if all("retained" in of for of in found.values()) else "two_nn"
    handles = []
    for i, (name, of) in enumerate(found.items()):
        for kind, line in _LINES.items():
            values = np.array(of[quantity][kind], float)
            axes.plot(of["sizes"], values, linestyle=line, markersize=3, **_look(i))
        handles.append(plt.Line2D([], [], label=name, markersize=3, **_look(i)))
    handles += [
        plt.Line2D([], [], color="0.4", linestyle=line, label=f"{truncated.KINDS[kind]} m")
        for kind, line in _LINES.items()
    ]
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    if quantity == "retained":
        axes.axhline(1, color="0.6", linewidth=0.6, zorder=1)
        axes.set(title="accuracy of a linear probe", ylabel="share of that of all dimensions")
    else:
        axes.set(title="intrinsic dimension", ylabel="TwoNN")
    axes.set_xlabel("dimensions kept, m")
    axes.legend(handles=handles, fontsize=6, loc="lower right")


# --- the tables ----------------------------------------------------------------------------------


def report(records: Records) -> str:
    """The tables that the command prints."""
    config, summary = Config(**records.config), records.summary
    tables = {
        "design": _design_tables,
        "whitening": _whitening_tables,
        "hubness": _hubness_tables,
        "truncation": _truncation_tables,
    }
    return printed(
        records,
        *(
            table
            for part, make in tables.items()
            if part in summary
            for table in make(config, summary[part])
        ),
        claims_table(
            summary["claims"],
            ("part", "claim", "its paper", "here", "held here"),
            ("part", "claim", "paper", "measured", "verdict"),
        ),
        *_left_out(config, summary),
    )


def _table(title: str, *heads: str, right: bool = False, caption: str | None = None) -> Table:
    table = Table(title=title, title_justify="left", caption=caption, caption_justify="left")
    for i, head in enumerate(heads):
        number = right and i > 0
        table.add_column(head, justify="right" if number else "left", no_wrap=number)
    return table


def _left_out(config: Config, summary: dict[str, Any]) -> list[str]:
    """What was not measured for want of files."""
    lines = []
    texts = summary.get("whitening", {})
    if config.embeddings is None and texts:
        judged = {k for of in texts.values() for k in of.get("raw", {})}
        if not {"sts", "similarity"} & judged:
            lines.append(
                "no lists of similar words or sentences: --data_dir names a folder with word_eval/ "
                "and sts/"
            )
    truncation = summary.get("truncation", {})
    if config.embeddings is not None and not any("accuracy" in of for of in truncation.values()):
        lines.append("no errors and no probes: --labels names a file with the rows' classes")
    return lines


def _design_tables(config: Config, found: dict[str, Any]) -> list[Table]:
    out = _table(
        f"design tests on {config.points} points in {config.dim}-d: measured, * fails",
        "test and rule",
        *design.SCORES.values(),
        right=True,
        caption="scores are relative to their own at the isotropic Gaussian",
    )
    for test, title in design.TESTS.items():
        cells = [tests[test] for tests in found["scores"].values()]
        marks = (f"{of['measured']:.3f}{' ' if of['passed'] else '*'}" for of in cells)
        out.add_row(f"{title}: {design.RULES[test]}", *marks)
    bias = found["bias"]
    few = _table(
        f"IsoScore of n points of an isotropic Gaussian in {bias['dim']}-d",
        "n",
        *map(str, bias["points"]),
        right=True,
    )
    for title in ("measured", "expected"):
        few.add_row(title, *(f"{value:.3f}" for value in bias[title]))
    return [out, few]


def _whitening_tables(config: Config, found: dict[str, Any]) -> list[Table]:
    heads = {
        "recall": "recall@1",
        "mrr": "MRR",
        "similarity": "words",
        "sts": "sentences",
        "norm": "norm, -log p",
        "first_zipf": "1st sym., p",
        "second_zipf": "2nd sym., p",
    }
    tables = []
    for name, of in found.items():
        there = [head for head in heads if head in of["raw"]]
        size = f"{round(np.mean(of['words']))} words"
        if "passages" in of:
            size += f", {round(np.mean(of['passages']))} held-out passages"
        out = _table(f"{name}: {size}", "vectors", *(heads[h] for h in there), right=True)
        for method, title in words.METHODS.items():
            out.add_row(title, *(_ranged(of[method][head]) for head in there))
        tables.append(out)
    return tables


def _ranged(values) -> str:
    """Mean and half the range over seeds."""
    values = np.array(values, float)
    if not np.isfinite(values).all():
        return ""
    text = f"{values.mean():.3f}"
    return text if values.size == 1 else f"{text} ±{np.ptp(values) / 2:.3f}"


def _hubness_tables(config: Config, found: dict[str, Any]) -> list[Table]:
    tables = []
    heads = ("skewness", "Robin Hood", "antihubs", "error", "skewness cut by")
    for name, of in found["sources"].items():
        out = _table(
            f"{name}: {config.k} nearest neighbours by different distances",
            "distance",
            *heads,
            right=True,
        )
        for method, title in hubs.METHODS.items():
            cells = [_ranged(of[method][q]) if q in of[method] else "" for q in hubs.QUANTITIES]
            share = "" if method == "none" else f"{cut(of, method):.0%}"
            out.add_row(title, *cells, share)
        tables.append(out)
    return tables


def _truncation_tables(config: Config, found: dict[str, Any]) -> list[Table]:
    heads = {"accuracy": "accuracy", "retained": "retained", "two_nn": "TwoNN",
             "isoscore": "IsoScore", "rank": "rank"}  # fmt: skip
    tables = []
    for name, of in found.items():
        out = _table(
            f"{name}: of m dimensions, the first / random / principal ones",
            "m",
            *(title for key, title in heads.items() if key in of),
            right=True,
        )
        for i, size in enumerate(of["sizes"]):
            cells = (
                " / ".join(
                    number(of[key][kind][i], 1 if key in ("two_nn", "rank") else 3) or "-"
                    for kind in truncated.KINDS
                )
                for key in heads
                if key in of
            )
            out.add_row(str(size), *cells)
        tables.append(out)
    return tables
