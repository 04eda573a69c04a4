"""How every experiment ends: what its records say, in a file, in a figure and in print."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

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


def printed(records: Records, *parts: Table | str, width: int = 130) -> str:
    """What the command prints: tables and sentences in their order, then where the figure is."""
    console = Console(width=width)
    with console.capture() as captured:
        for part in (*parts, f"figure: {records.folder / 'figure.png'}"):
            if isinstance(part, str):
                console.print(part, soft_wrap=True, highlight=False, markup=False)
            else:
                console.print(part)
    return captured.get()


def claims_table(
    rows: Iterable[Mapping[str, str] | Sequence[str]],
    heads: Sequence[str] = ("claim", "its paper", "here", "held here"),
    keys: Sequence[str] = ("claim", "paper", "measured", "verdict"),
) -> Table:
    """What a paper says beside what was found, a row for each claim; of a mapping its `keys`."""
    table = Table(*heads, title="claims", title_justify="left")
    for row in rows:
        table.add_row(*([row[key] for key in keys] if isinstance(row, Mapping) else row))
    return table
