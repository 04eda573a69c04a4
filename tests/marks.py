"""Marks that several files of tests use."""

import pytest


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
