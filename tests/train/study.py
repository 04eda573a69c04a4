"""A whole study in a few lines: what the tests start as processes, and kill.

python -m tests.train.study --out=FOLDER [--flag=value ...]
"""

import dataclasses
import sys
from pathlib import Path

import jax

from rlkit.train import app, mesh
from rlkit.train.flags import check, flag
from rlkit.train.loop import evenly_spaced, fit
from rlkit.train.state import for_seeds
from tests.train import cases


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = flag(60, "updates", at_least=0)
    seeds: int = flag(2, "runs side by side", at_least=1)
    stream: bool = flag(False, "batches from outside")

    def __post_init__(self):
        check(self)


def run(config: Config, options: app.Options) -> Path:
    with app.open_run("study", config, options, seeds=config.seeds, steps=config.steps) as opened:
        fit(
            cases.UPDATE,
            mesh.replicate(for_seeds(cases.init, config.seeds), opened.mesh),
            cases.Counted() if config.stream else cases.sample,
            steps=config.steps,
            probe=cases.probe,
            probe_at=evenly_spaced(config.steps, 30),
            writer=opened.writer,
            checkpoints=opened.checkpoints,
            progress=opened.progress,
            constrain=mesh.constrainer(opened.mesh, 8),
        )
    return opened.folder


def report(folder: Path) -> str:
    return f"done by process {jax.process_index()}: {folder}"


def main(argv=None) -> int:
    return app.main("study", Config, run, report, presets={}, doc=__doc__, argv=argv)


if __name__ == "__main__":
    sys.exit(main())
