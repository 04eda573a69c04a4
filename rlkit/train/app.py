"""From a command line to a run's folder: what every experiment's `main` does.

runs/<experiment>/<name>/
    config.json        the resolved configuration; another one is refused here
    environment.json   versions, devices, command, git revision; under "resumed" those of later
                       starts, where they differ
    records.jsonl, arrays/, checkpoints/
    summary.json       measured, predicted, verdicts
    figure.pdf, figure.png
"""

import dataclasses
import fcntl
import hashlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from rlkit.errors import DataError, UsageError
from rlkit.train import mesh as meshes
from rlkit.train import records
from rlkit.train.checkpoint import Checkpoints
from rlkit.train.environment import environment
from rlkit.train.flags import HelpRequested, check, flag, parse
from rlkit.train.progress import Progress
from rlkit.train.records import Writer


@dataclasses.dataclass(frozen=True)
class Options:
    """Where and how a run is carried out; these do not change its results."""

    out: str = flag("runs", "folder that all runs go to")
    name: str | None = flag(None, "name of the run's folder; made from the flags if not given")
    data_dir: str | None = flag(None, "folder with the data's files; fetched if not given")
    overwrite: bool = flag(False, "start afresh where a run of this name exists")
    checkpoint_every: int | None = flag(
        None, "steps between checkpoints (20 in a run); 0 for none", at_least=0
    )
    tensorboard: bool = flag(False, "also write the scalars for TensorBoard")
    quiet: bool = flag(False, "no progress")
    mesh: str | None = flag(None, "devices to lay the batch over, such as data:8")
    distributed: bool = flag(False, "join the processes that a TPU pod or SLURM has started")
    coordinator_address: str | None = flag(None, "HOST:PORT of process 0, for several processes")
    num_processes: int | None = flag(None, "how many processes there are", at_least=1)
    process_id: int | None = flag(None, "which of them this is, from 0", at_least=0)

    def __post_init__(self):
        check(self)


def resolve(options: Options | None, config: Any) -> Options:
    """The options with the run's name made out; without any, quietly in a temporary folder.

    The name is made from the fields of `config` that were given, so this comes before whatever
    fills in those that were left open.
    """
    if options is None:
        options = Options(out=tempfile.mkdtemp(prefix="rlkit-"), quiet=True)
    name = options.name or name_from(config, type(config)())
    return dataclasses.replace(options, name=name)


@dataclasses.dataclass(frozen=True)
class Run:
    """An open run: its folder and what `fit` needs."""

    folder: Path
    writer: Writer | None
    checkpoints: Checkpoints | None
    progress: Progress | None
    mesh: Any

    def save_arrays(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Writes `name`.npz beside the records: what they are to be held against."""
        if arrays and self.writer is not None:
            records.write_arrays(self.folder / f"{name}.npz", arrays)


@contextmanager
def open_run(experiment: str, config: Any, options: Options, *, seeds: int | None, steps: int):
    """Opens, or goes on with, the run of `config`; a context manager that gives a `Run`.

    Of several processes the first has the folder, and the others end where it cannot.

    Raises:
        UsageError: the folder holds something else or a run of another configuration, cannot be
            written, or another process is at it.
        DataError: its config.json is damaged.
    """
    mesh = meshes.parse(options.mesh)
    folder = Path(options.out).expanduser() / experiment / resolve(options, config).name
    is_first = meshes.is_first_process()
    writer = refusal = None
    with ExitStack() as held:
        if is_first:
            try:
                board_class = _board_class() if options.tensorboard else None
                held.enter_context(_claimed(folder, config, overwrite=options.overwrite))
                also = held.enter_context(_board(board_class, folder)) if board_class else None
                writer = Writer(folder, seeds=seeds, also=also)
            except (UsageError, DataError) as error:
                refusal = error
        meshes.agree(refusal)
        every = options.checkpoint_every
        every = max(1, steps // 20) if every is None else every
        yield Run(
            folder=folder,
            writer=writer,
            checkpoints=Checkpoints(folder / "checkpoints", every=every) if every else None,
            progress=Progress() if is_first and not options.quiet else None,
            mesh=mesh,
        )
        meshes.wait_for_all("the records are complete")


def main(
    experiment: str,
    config_class: type,
    run: Callable[[Any, Options], Any],
    report: Callable[[Any], str],
    *,
    presets: Mapping[str, Mapping[str, Any]],
    doc: str,
    argv: Sequence[str] | None = None,
) -> int:
    """Parses the flags, runs, prints the report; returns the exit code.

    0: done; 1: the data or the run failed; 2: the flags cannot be used; 130: interrupted.
    """
    argv = sys.argv[1:] if argv is None else argv
    usage = f"{doc.strip()}\n\npython -m experiments.{experiment} [--flag=value ...]"
    try:
        config, options = parse(argv, config_class, Options, presets=presets, usage=usage)
        if options.name is not None and Path(options.name).name != options.name:
            # With a path in it, one run's --overwrite could reach another's files.
            raise UsageError(f"--name={options.name} must be a plain folder name")
        meshes.start_processes(options)
        text = report(run(config, options))
        if meshes.is_first_process():
            print(text)
    except HelpRequested as text:
        print(text)
    except (UsageError, DataError) as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(
            "interrupted; the same command, without --overwrite, goes on from the last checkpoint",
            file=sys.stderr,
        )
        return 130
    return 0


def name_from(config: Any, defaults: Any) -> str:
    """A folder name that tells a configuration apart: the fields that are not at their default."""
    changed = [
        f"{field.name}={getattr(config, field.name)}"
        for field in dataclasses.fields(config)
        if getattr(config, field.name) != getattr(defaults, field.name)
    ]
    name = "-".join(changed) or "default"
    name = "".join(c if c.isalnum() or c in "=.-_," else "_" for c in name)
    if len(name) > 100:
        name = f"{name[:90]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return name


@contextmanager
def _claimed(folder: Path, config: Any, *, overwrite: bool):
    """Holds the folder for this process and this configuration, or refuses and changes nothing."""
    try:
        if _is_foreign(folder):
            raise UsageError(
                f"{folder} is not empty and was not made by a run; give another --name"
            )
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder} cannot be a run's folder: {error.strerror}") from None
    with _lock(folder):
        if overwrite:
            _clear(folder)
        wanted, path = dataclasses.asdict(config), folder / "config.json"
        if path.exists():
            _hold_against(records.read_json(path), wanted, folder)
        else:
            # First of all files, for by it a folder is known to be a run's.
            records.write_json(path, wanted)
        _note_environment(folder / "environment.json")
        yield


def _note_environment(path: Path) -> None:
    """Adds what this start runs on to what the earlier ones ran on."""
    now, found = environment(), {}
    if path.exists():
        found = records.read_json(path)
    earlier = found.pop("resumed", [])
    starts = [found, *earlier] if found else []
    if now not in starts:
        starts.append(now)
    records.write_json(path, starts[0] | ({"resumed": starts[1:]} if starts[1:] else {}))


def _is_foreign(folder: Path) -> bool:
    """Whether something is in there that no run has left."""
    if not folder.exists():
        return False
    found = {path.name for path in folder.iterdir()}
    return "config.json" not in found and not found <= {_LOCK, "config.json.partial"}


def _hold_against(found: dict[str, Any], wanted: dict[str, Any], folder: Path) -> None:
    differing = [
        f"--{key} is {wanted.get(key)} but was {found.get(key)}"
        for key in sorted(wanted | found)
        if wanted.get(key) != found.get(key)
    ]
    if differing:
        raise UsageError(
            f"{folder} holds a run with other flags ({'; '.join(differing)}); "
            "give another --name, or --overwrite to start afresh"
        )


def _clear(folder: Path) -> None:
    """Empties a run's folder, so that a run that is killed meanwhile starts at zero."""
    last = ("config.json", _LOCK)  # without config.json the folder would be nobody's
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in last:
            path.unlink()
    (folder / "config.json").unlink(missing_ok=True)


_LOCK = ".lock"


@contextmanager
def _lock(folder: Path):
    """Holds the folder for this process; the lock goes with the process, however it ends."""
    try:
        opened = (folder / _LOCK).open("a")
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {error.strerror}") from None
    with opened as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"another process is at the run in {folder}") from None
        yield


def _board_class() -> type:
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise UsageError(
            "--tensorboard needs the package tensorboardX: pip install tensorboardX"
        ) from None
    return SummaryWriter


@contextmanager
def _board(board_class: type, folder: Path):
    """A function for `Writer(also=...)` that writes the scalars for TensorBoard."""
    with board_class(str(folder / "tensorboard")) as board:

        def write(step: int, scalars: Mapping[str, np.ndarray]) -> None:
            for name, value in scalars.items():
                if value.ndim == 0:
                    board.add_scalar(name, value, step)
                for seed, one in enumerate(value if value.ndim else ()):
                    board.add_scalar(f"{name}/seed{seed}", one, step)
            board.flush()

        yield write
