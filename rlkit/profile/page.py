"""The profile as a page that stands alone, and as a PDF of its plots."""

import html
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.backends.backend_pdf import PdfPages

from rlkit.plots import style
from rlkit.profile.sections import Finding, Section

FIRST, SECOND, THIRD = "#0072b2", "#d55e00", "#009e73"  # told apart by the colour-blind too

CSS = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; margin: 0 auto;
  max-width: 62rem; padding: 1.5rem; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; margin: 0 0 .2rem; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .2rem; }
p.note { color: #555; margin: .1rem 0 .8rem; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; vertical-align: top; padding: .35rem .9rem .35rem 0;
  border-top: 1px solid #ddd; }
td.value { font-variant-numeric: tabular-nums; white-space: nowrap; }
td.name { width: 15rem; } td.value { width: 9rem; } small { color: #555; white-space: nowrap; }
.plots { display: flex; flex-wrap: wrap; gap: 1rem; margin: .8rem 0; }
.plots svg { max-width: 100%; height: auto; }
@media (max-width: 40rem) { td, td.name, td.value { display: block; width: auto; border: 0;
  padding: .1rem 0; }
  tr { display: block; border-top: 1px solid #ddd; padding: .4rem 0; } thead { display: none; } }
"""


def write(folder: Path, title: str, sections: Mapping[str, list[Section]], about: str) -> None:
    """Writes `report.html` and `profile.pdf` into the folder; `sections` by the file's name."""
    parts, figures = [], []
    for name, of_file in sections.items():
        if len(sections) > 1:
            parts.append(f"<h2>{html.escape(name)}</h2>")
        for section in of_file:
            drawn = _figures(section, name if len(sections) > 1 else "")
            figures += drawn
            parts.append(_section(section, [_svg(f) for f in drawn]))
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{CSS}</style></head><body>"
        f'<h1>{html.escape(title)}</h1><p class="note">{html.escape(about)}</p>'
        + "\n".join(parts)
        + "</body></html>\n"
    )
    (folder / "report.html").write_text(page, encoding="utf-8")
    with PdfPages(folder / "profile.pdf", metadata={"CreationDate": None}) as pdf:
        for figure in figures:
            pdf.savefig(figure)
            plt.close(figure)


def number(value: float) -> str:
    """Four digits, or all of a whole number."""
    if value != value:
        return "undefined"
    if np.isfinite(value) and value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def _section(section: Section, drawings: list[str]) -> str:
    rows = "\n".join(_row(f) for f in section.findings)
    table = f"<table><tbody>{rows}</tbody></table>" if rows else ""
    plots = f'<div class="plots">{"".join(drawings)}</div>' if drawings else ""
    note = f'<p class="note">{html.escape(section.note)}</p>' if section.note else ""
    return f"<h2>{html.escape(section.title)}</h2>{note}{plots}{table}"


def _row(finding: Finding) -> str:
    between = ""
    if np.isfinite(finding.low) and np.isfinite(finding.high):
        between = f"<br><small>{number(finding.low)} to {number(finding.high)}</small>"
    return (
        f'<tr><td class="name">{html.escape(finding.name)}</td>'
        f'<td class="value">{number(finding.value)}{between}</td>'
        f"<td>{html.escape(finding.says)}</td></tr>"
    )


def _svg(figure: Any) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    found = text.getvalue()
    return found[found.index("<svg") :]


def _figures(section: Section, prefix: str) -> list[Any]:
    drawn = []
    with style.paper():
        for name, data in section.plots.items():
            figure, axes = plt.subplots(figsize=(3.6, 2.5), layout="constrained")
            DRAW[name](axes, data)
            if prefix:
                axes.set_title(f"{prefix}: {axes.get_title(loc='left')}")
            drawn.append(figure)
    return drawn


def _histogram(axes, values, label=None, color=FIRST, range=None) -> None:
    if range is not None:
        values = np.clip(values, *range)  # a cosine may be 1 and a rounding
    axes.hist(values, bins=60, range=range, color=color, alpha=0.6, label=label, density=True)
    axes.set_ylabel("density")


def _norms(axes, norms) -> None:
    # Norms that differ by roundings are one number, and not a distribution.
    alike = np.ptp(norms) <= 1e-2 * norms.max()
    _histogram(axes, norms, range=(0, 2 * norms.max() or 1) if alike else None)
    axes.set(title="Length of the rows", xlabel="norm")


def _eigenvalues(axes, eigenvalues) -> None:
    k = np.arange(1, len(eigenvalues) + 1)
    present = eigenvalues > 0
    axes.loglog(k[present], eigenvalues[present], color=FIRST)
    axes.set(title="Spectrum", xlabel="index of the eigenvalue", ylabel="variance")
    if eigenvalues.sum() > 0:
        twin = axes.twinx()
        twin.plot(k, np.cumsum(eigenvalues) / eigenvalues.sum(), color=SECOND, linestyle="--")
        twin.set(ylabel="share of the first k (dashed)", ylim=(0, 1.02))
        twin.spines["right"].set_visible(True)


def _variances(axes, variance) -> None:
    axes.plot(np.arange(len(variance)), variance, ".", color=FIRST, markersize=2)
    axes.axhline(5, color=SECOND, linestyle="--", linewidth=0.8)
    axes.set(
        title="Variance by dimension (dashed: outliers above)",
        xlabel="dimension",
        ylabel="in units of the average",
        ylim=(0, None),
    )


def _cosines(axes, cosines) -> None:
    _histogram(axes, cosines, range=(-1, 1))
    axes.set(title="Cosine of two random rows", xlabel="cosine")


def _scales(axes, data) -> None:
    axes.fill_between(data["scale"], data["low"], data["high"], color=FIRST, alpha=0.25, lw=0)
    axes.plot(data["scale"], data["value"], "o-", color=FIRST, markersize=3)
    axes.set_xscale("log", base=2)
    axes.set(
        title="Intrinsic dimension by scale (GRIDE)",
        xlabel="neighbours",
        ylabel="dimension",
        ylim=(0, None),
    )


def _occurrence(axes, counts) -> None:
    values, how_many = np.unique(counts, return_counts=True)
    axes.semilogy(values, how_many, ".", color=FIRST, markersize=3)
    axes.axvline(counts.mean(), color=SECOND, linestyle="--", linewidth=0.8)
    axes.set(
        title="How often a row is a neighbour (dashed: mean)",
        xlabel="times among the nearest of others",
        ylabel="rows",
    )


def _pairs(axes, data) -> None:
    _histogram(axes, data["others"], "others", FIRST, (-1, 1))
    _histogram(axes, data["partners"], "partners", SECOND, (-1, 1))
    axes.legend()
    axes.set(title="Cosine across the pair", xlabel="cosine")


def _truncation(axes, data) -> None:
    for name, color, line in (
        ("principal", THIRD, "-."),
        ("first", FIRST, "-"),
        ("random", SECOND, "--"),
    ):
        axes.plot(data["sizes"], data[name], line, color=color, label=name, marker="o", ms=2.5)
    axes.set_xscale("log")
    axes.set(title="Truncation", xlabel="dimensions kept", ylabel="kept", ylim=(0, 1.02))
    axes.legend(title="which")


DRAW: dict[str, Callable] = {
    "norms": _norms,
    "eigenvalues": _eigenvalues,
    "variance by dimension": _variances,
    "cosines": _cosines,
    "dimension by scale": _scales,
    "occurrence": _occurrence,
    "pair cosines": _pairs,
    "truncation": _truncation,
}
