"""Marks and places that several files of tests use."""

import os
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("RLKIT_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
"""Folder of the published files that tests of real data look at, where there is one."""


def slow_but_first(names, values, ids=None):
    """Parametrises; of the values only the first is a fast test."""
    values = list(values)
    ids = ids or [None] * len(values)
    return pytest.mark.parametrize(
        names,
        [
            pytest.param(
                *(value if isinstance(value, tuple) else (value,)),
                id=name,
                marks=[pytest.mark.slow] * bool(i),
            )
            for i, (value, name) in enumerate(zip(values, ids, strict=True))
        ],
    )
