"""How every experiment ends: what its records say, in a file and in a figure beside them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from rlkit.plots import style
from rlkit.train import mesh
from rlkit.train.records import Records, write_json


def conclude(
    folder: Path,
    summarize: Callable[[Records], Any],
    figure: Callable[[Records], Figure],
) -> Records:
    """Writes summary.json and the figure, made from the records on disk, and returns those.

    Of several processes the first writes, and the others wait for it.
    """
    records = Records(folder)
    if mesh.is_first_process():
        write_json(folder / "summary.json", summarize(records))
        style.save(figure(records), folder)
    mesh.wait_for_all("the summary is written")
    return records
