"""What a person sees of a run."""

import io

import numpy as np
import pytest

from rlkit.train import progress as module
from rlkit.train.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when a test says so."""

    class Clock:
        now = 0.0

    monkeypatch.setattr(module.time, "monotonic", lambda: Clock.now)
    return Clock


def test_lines_come_at_intervals_and_at_the_end(clock):
    file = io.StringIO()
    progress = Progress(file=file, every=5.0)
    progress.start(0, 1000)
    for step in range(0, 1001, 10):
        clock.now = step / 50  # 20 s in all
        progress.show(step, {"loss": np.array([1.0, 3.0])})
    progress.stop()
    lines = file.getvalue().splitlines()
    assert [" ".join(line.split()) for line in lines] == [
        "step 250/1000 loss 2 50 steps/s 15 s left",
        "step 500/1000 loss 2 50 steps/s 10 s left",
        "step 750/1000 loss 2 50 steps/s 5 s left",
        "step 1000/1000 loss 2 50 steps/s 0 s left",
    ]


def test_resuming_is_said_and_not_counted_as_speed(clock):
    file = io.StringIO()
    progress = Progress(file=file, every=0)
    progress.start(500, 1000)
    clock.now = 10.0
    progress.show(600, {})
    lines = [" ".join(line.split()) for line in file.getvalue().splitlines()]
    assert lines == [
        "resuming at step 500 of 1,000",
        "step 600/1000 10 steps/s 40 s left",
    ]


def test_the_first_probe_has_no_rate_yet(clock):
    file = io.StringIO()
    progress = Progress(file=file, every=0, scalar="accuracy")
    progress.start(0, 10)
    progress.show(0, {"loss": np.float32(3), "accuracy": np.float32(0.25)})
    assert " ".join(file.getvalue().split()) == "step 0/10 accuracy 0.25 0 steps/s starting"


def test_a_scalar_that_is_not_finite_is_shown():
    file = io.StringIO()
    progress = Progress(file=file, every=0)
    progress.start(0, 1)
    progress.show(1, {"loss": np.array([np.nan, 1.0])})
    assert "loss nan" in file.getvalue()


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_gets_a_bar_that_goes_away(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    file = Terminal()
    progress = Progress(file=file)
    progress.start(0, 100)
    progress.show(50, {"loss": np.float32(0.5)})
    progress._bar.refresh()
    assert "50/100" in file.getvalue()
    assert "loss 0.5" in file.getvalue()
    progress.stop()
    progress.stop()  # an error may have come first
    assert "\x1b[?25h" in file.getvalue()  # the cursor is back
