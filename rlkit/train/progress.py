"""How far a run is: a bar with rate and remaining time on a terminal, a line at times elsewhere."""

import sys
import time

import numpy as np
import rich.console
import rich.progress


class Progress:
    """Shows the steps done, steps per second, the time that remains, and one scalar.

    Args:
        scalar: the name of the scalar to show, its mean where there are several seeds.
        every: seconds between two lines, where there is no terminal; the last step always has one.
        file: where to; standard error, so that tables on standard output stay clean.
    """

    def __init__(self, *, scalar: str = "loss", every: int | float = 5.0, file=None):
        self._scalar = scalar
        self._every = every
        self._console = rich.console.Console(file=file or sys.stderr)
        self._bar = None

    def start(self, done: int, steps: int) -> None:
        """Begins at step `done` of `steps`."""
        self._steps, self._last = steps, (done, time.monotonic())
        if done:
            self._console.print(f"resuming at step {done:,} of {steps:,}", highlight=False)
        if self._console.is_terminal:
            self._bar = rich.progress.Progress(
                rich.progress.BarColumn(),
                rich.progress.MofNCompleteColumn(),
                rich.progress.TextColumn("{task.description}"),
                rich.progress.TimeRemainingColumn(),
                console=self._console,
                transient=True,
            )
            self._task = self._bar.add_task("", total=steps, completed=done)
            self._bar.start()

    def show(self, step: int, values: dict) -> None:
        """Reports that `step` is reached, and the scalar where it is among `values`."""
        before, then = self._last
        now = time.monotonic()
        if self._bar is None and now - then < self._every and step < self._steps:
            return
        self._last = (step, now)
        rate = (step - before) / max(now - then, 1e-9)
        value = ""
        if self._scalar in values:
            value = f"{self._scalar} {np.mean(values[self._scalar]):.4g}"
        if self._bar is not None:
            self._bar.update(
                self._task, completed=step, description=f"{value}  {rate:,.0f} steps/s"
            )
            return
        remaining = f"{(self._steps - step) / rate:,.0f} s left" if rate else "starting"
        self._console.print(
            f"step {step:>{len(str(self._steps))}}/{self._steps}  {value}  "
            f"{rate:,.0f} steps/s  {remaining}",
            highlight=False,
            soft_wrap=True,
        )

    def stop(self) -> None:
        """Ends the bar; also after an error."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
