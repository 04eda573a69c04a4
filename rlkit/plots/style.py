"""One look for all figures: sizes for a paper's column, colours that print and that the
colour-blind can tell apart, and bands over seeds.
"""

from contextlib import contextmanager
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

RC = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.2,
    "legend.frameon": False,
    "legend.fontsize": 7,
    "figure.dpi": 150,
    "savefig.bbox": "tight",
    "pdf.fonttype": 42,  # text stays text
}


@contextmanager
def paper():
    """The style, for the length of a `with` block."""
    with plt.rc_context(RC):
        yield


def mode_colors(count: int) -> np.ndarray:
    """RGBA [count 4], from dark to light in the order of the modes."""
    return plt.get_cmap("viridis")(np.linspace(0, 0.9, max(count, 1)))


def band(axes, t, curves, *, color, label: str | None = None) -> None:
    """The median over seeds with the range from least to greatest; `curves` is [T] or [T s]."""
    curves = np.asarray(curves)
    if curves.ndim == 1:
        curves = curves[:, None]
    axes.plot(t, np.median(curves, axis=1), color=color, label=label)
    if curves.shape[1] > 1:
        axes.fill_between(t, curves.min(1), curves.max(1), color=color, alpha=0.25, linewidth=0)


def lines(axes, t, curves, *, color, label: str | None = None) -> None:
    """Each seed a thin line; `curves` is [T s]. For curves whose events fall at other times."""
    for seed, curve in enumerate(np.asarray(curves).T):
        axes.plot(t, curve, color=color, linewidth=0.7, label=None if seed else label)


def save(figure, folder: Path) -> Path:
    """Writes `figure.pdf` and `figure.png` into the folder; returns the path of the PNG."""
    # Without the date the same records give the same bytes.
    figure.savefig(folder / "figure.pdf", metadata={"CreationDate": None})
    figure.savefig(folder / "figure.png", dpi=200)
    plt.close(figure)
    return folder / "figure.png"
