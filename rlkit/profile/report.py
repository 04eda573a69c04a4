"""From a file of embeddings to a folder with its profile."""

import dataclasses
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

import rlkit
from rlkit.errors import DataError, UsageError
from rlkit.profile import cloud, inputs, tasks, two
from rlkit.profile.moments import Moments, moments, sample
from rlkit.profile.sections import Section
from rlkit.train.flags import HelpRequested, check, flag, parse
from rlkit.train.records import write_json


@dataclasses.dataclass(frozen=True)
class Config:
    """What is read beside the embeddings, and how much of it."""

    key: str | None = flag(None, "which array of an .npz file")
    paired: str | None = flag(None, "second view or modality: row i belongs to row i")
    compare: str | None = flag(None, "another representation of the same rows, profiled beside")
    labels: str | None = flag(None, "class of each row: .npy of integers or text, or .txt lines")
    frequencies: str | None = flag(None, ".npy of how often each row is used (words)")
    queries: str | None = flag(None, "with --relevant: search these among the rows, or --documents")
    documents: str | None = flag(None, "what --queries are searched in; the rows if not given")
    relevant: str | None = flag(None, ".npy [queries, r] of row numbers, filled up with -1")
    sample: int = flag(10_000, "rows that are compared with one another", at_least=10)
    seed: int = flag(0, "of the draw of that sample, and of resampling", at_least=0)
    drop_nonfinite: bool = flag(False, "leave rows with NaN or infinity out")
    out: str | None = flag(None, "folder of the report; runs/profile/FILE if not given")
    overwrite: bool = flag(False, "replace an earlier profile in that folder")
    quiet: bool = flag(False, "no progress")

    def __post_init__(self):
        check(self)
        if (self.queries is None) != (self.relevant is None):
            raise UsageError("--queries and --relevant go together")
        if self.documents is not None and self.queries is None:
            raise UsageError("--documents is for --queries and --relevant")


Progress = Callable[[str], None]


def measure(
    path: str | Path, config: Config | None = None, progress: Progress = lambda text: None
) -> dict[str, list[Section]]:
    """All sections, by the name of the file (two with `compare`).

    Raises:
        UsageError: a file that is not there, or a key that it does not have.
        DataError: a file that holds no embeddings, or does not fit the others.
    """
    config = config or Config()
    rows = inputs.embeddings(path, key=config.key)
    names = [Path(path).name]
    if rows.ndim == 3 and config.paired is not None:
        raise UsageError(f"{path} holds both sides of the pairs already; leave --paired out")
    partners = None
    if rows.ndim == 3:
        rows, partners = rows[0], rows[1]
    elif config.paired is not None:
        partners = _second(config.paired, rows, "--paired")
        if partners.shape[1] != rows.shape[1]:
            raise DataError(
                f"{config.paired} has {partners.shape[1]} dimensions and {path} {rows.shape[1]}; "
                "pairs are compared in one space"
            )
    other = _second(config.compare, rows, "--compare") if config.compare is not None else None
    n = len(rows)
    labels = inputs.labels(config.labels, n) if config.labels is not None else None
    if labels is not None and len(labels[1]) < 2:
        raise DataError(f"{config.labels} holds one class only; a probe tells at least two apart")
    weights = inputs.frequencies(config.frequencies, n) if config.frequencies is not None else None
    retrieved = _retrieval(config, path, rows)

    found = _read(rows, path, config, progress)
    kept = found.kept
    if partners is not None:
        kept = np.intersect1d(kept, _read(partners, config.paired or path, config, progress).kept)
    if other is not None:
        of_other = _read(other, config.compare, config, progress)
        kept = np.intersect1d(kept, of_other.kept)
    if len(kept) < 2:
        raise DataError(f"fewer than two rows of {path} are finite on both sides")
    z, numbers = sample(rows, kept, config.sample, config.seed)
    sections = {names[0]: _of(rows, found, z, numbers, labels, weights, config, progress)}
    if partners is not None:
        progress("comparing the pairs")
        y = np.asarray(partners[numbers], np.float32)
        pairs = two.pairs(z, y, len(kept))
        sections[names[0]].insert(0, pairs)
    if retrieved is not None:
        progress("searching")
        sections[names[0]].append(tasks.search(*retrieved))
    if other is not None:
        progress("comparing the two files")
        y = np.asarray(other[numbers], np.float32)
        name = Path(config.compare).name
        name = name if name not in sections else str(config.compare)
        sections[name] = _of(
            other,
            of_other,
            y,
            numbers,
            labels,
            weights,
            config,
            progress,
        )
        sections[names[0]].insert(0, two.comparison(z, y, len(kept)))
    return sections


def _of(
    rows: np.ndarray,
    found: Moments,
    z: np.ndarray,
    numbers: np.ndarray,
    labels: tuple[np.ndarray, list[str]] | None,
    weights: np.ndarray | None,
    config: Config,
    progress: Progress,
) -> list[Section]:
    """The sections of one file."""
    key = jax.random.key(config.seed)
    y = None if labels is None else labels[0][numbers]
    progress("spectrum")
    sections = [cloud.rows(found), cloud.spectrum(found)]
    progress("isotropy")
    sections.append(cloud.shape(found, z, None if weights is None else weights[numbers]))
    progress("intrinsic dimension")
    sections.append(cloud.intrinsic_dimension(z, found.n, key))
    progress("neighbours")
    sections.append(cloud.hubs(z, found.n))
    if y is not None:
        progress("probes")
        sections.append(tasks.classes(z, y, labels[1], found.n, config.seed))
    if rows.shape[1] >= 4:
        progress("truncation")
        sections.append(tasks.truncation(z, y, found.n, config.seed))
    sections.append(cloud.bounds(found, None if labels is None else len(labels[1])))
    return sections


def _read(rows: np.ndarray, name: str | Path, config: Config, progress: Progress) -> Moments:
    return moments(
        rows,
        name=str(name),
        drop_nonfinite=config.drop_nonfinite,
        progress=lambda done, n: progress(f"reading {name}: {done:,} of {n:,} rows"),
    )


def _second(path: str, rows: np.ndarray, flag: str) -> np.ndarray:
    """Embeddings with as many rows."""
    found = inputs.embeddings(path)
    if found.ndim != 2 or len(found) != len(rows):
        shape = "x".join(map(str, found.shape))
        raise DataError(f"{flag}={path} is {shape}; it needs one row for each of {len(rows):,}")
    return found


def _retrieval(config: Config, path: str | Path, rows: np.ndarray):
    if config.queries is None:
        return None
    documents = rows if config.documents is None else inputs.embeddings(config.documents)
    queries = inputs.embeddings(config.queries)
    for name, found in ((config.queries, queries), (config.documents or path, documents)):
        if found.ndim != 2 or found.shape[1] != documents.shape[-1]:
            raise DataError(f"{name} is {found.shape}; queries and documents share dimensions")
        if not np.isfinite(found).all():
            raise DataError(f"{name} holds NaN or infinity; it cannot be searched")
    return queries, documents, inputs.relevant(config.relevant, len(queries), len(documents))


def write(folder: Path, path: str | Path, sections: dict, config: Config) -> None:
    """Writes the profile so that the folder is there whole or not at all."""
    from rlkit.profile import page  # draws; nothing else here needs matplotlib

    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        given = {
            field.name: getattr(config, field.name)
            for field in dataclasses.fields(config)
            if field.name not in ("out", "overwrite", "quiet")
            and getattr(config, field.name) != field.default
        }
        about = "; ".join(
            [f"rlkit {rlkit.__version__}", str(path), *(f"{k} {v}" for k, v in given.items())]
        )
        title = "Profile of " + " and ".join(sections)
        page.write(partial, title, sections, about)
        write_json(
            partial / "profile.json",
            {
                "version": rlkit.__version__,
                "file": str(path),
                "config": dataclasses.asdict(config),
                "profile": {
                    name: {
                        s.title: {"note": s.note, "findings": [f._asdict() for f in s.findings]}
                        for s in of_file
                    }
                    for name, of_file in sections.items()
                },
                "eigenvalues": {
                    name: next(s.plots["eigenvalues"] for s in of_file if "eigenvalues" in s.plots)
                    for name, of_file in sections.items()
                },
            },
        )
        partial.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(partial, folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def claim(folder: Path, *, overwrite: bool) -> None:
    """Refuses a folder that holds something else, or an earlier profile that may not be replaced.

    Raises:
        UsageError: with what to do about it.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--out={folder} is a file")
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not (folder / "profile.json").exists():
        raise UsageError(f"{folder} is not empty and holds no profile; give another --out")
    if not overwrite:
        raise UsageError(f"{folder} holds a profile already; --overwrite replaces it")


def table(sections: dict[str, list[Section]]) -> str:
    """The findings as text."""
    from rlkit.profile.page import number

    lines = []
    for name, of_file in sections.items():
        lines += [name, "=" * len(name)] if len(sections) > 1 else []
        for section in of_file:
            lines += ["", section.title, f"  {section.note}" if section.note else ""]
            for f in section.findings:
                between = f" ({number(f.low)} to {number(f.high)})" if f.low == f.low else ""
                lines.append(f"  {f.name:<34} {number(f.value):>10}{between}")
    return "\n".join(line for i, line in enumerate(lines) if line or i)


def main(argv: Sequence[str], *, usage: str) -> int:
    """The command line; returns the exit code.

    0: written; 1: the data cannot be profiled; 2: the flags cannot be used; 130: interrupted.
    """
    try:
        files = [a for a in argv if not a.startswith("-")]
        flags = [a for a in argv if a.startswith("-")]
        (config,) = parse(flags, Config, usage=usage)
        if len(files) != 1:
            raise UsageError(
                f"one FILE is profiled at a time, not {len(files)}; flags are written --name=value"
            )
        (path,) = files
        folder = Path(config.out or Path("runs/profile") / Path(path).stem).expanduser()
        claim(folder, overwrite=config.overwrite)
        with _Lines(quiet=config.quiet) as progress:
            sections = measure(path, config, progress)
            progress("drawing")
            write(folder, path, sections, config)
        print(table(sections))
        print(f"\nwritten: {folder / 'report.html'}")
    except HelpRequested as text:
        print(text)
    except (UsageError, DataError) as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        return 130
    return 0


class _Lines:
    """What is being done: one line that is rewritten on a terminal, a line at times elsewhere."""

    def __init__(self, *, quiet: bool):
        self._quiet, self._last, self._stage = quiet, -np.inf, ""
        self._terminal = sys.stderr.isatty()
        self._start = time.monotonic()

    def __enter__(self):
        return self

    def __call__(self, text: str) -> None:
        now, stage = time.monotonic(), text.split(":")[0]
        if self._quiet or (stage == self._stage and now - self._last < 2):
            return
        self._last, self._stage = now, stage
        line = f"[{now - self._start:4.0f} s] {text}"
        if self._terminal:
            print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def __exit__(self, *error: Any) -> None:
        if self._terminal and not self._quiet:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
