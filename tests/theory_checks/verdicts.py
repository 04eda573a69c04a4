"""What the tests of all checks ask of a check: a verdict, in double precision."""

import functools
from unittest import mock

import jax

from rlkit.theory.checks import Verdict, judge, judge_embeddings


def named(checks, name):
    """The one check whose name ends like this."""
    (check,) = [check for check in checks if check.name.endswith(name)]
    return check


def verdict_on(check, case=None, seed=0):
    """The outcome for a case (default: the first of the quick grid)."""
    if case is None:
        case = next(iter(check.cases["quick"].values()))
    with jax.enable_x64(True):
        return judge(check, check.draw(jax.random.key(seed), case))


def verdict_on_embeddings(check, given):
    """The outcome for somebody's embeddings, or why there is none."""
    with jax.enable_x64(True):
        return judge_embeddings(check, given)


def assert_holds_and_sees(check, case=None, control=None):
    """The case holds, and the control is rejected by the numbers."""
    found = verdict_on(check, case)
    assert found.verdict == Verdict.HOLDS, (check.name, found)
    rejected = verdict_on(check, check.control if control is None else control)
    assert rejected.verdict == Verdict.VIOLATED, (check.name, rejected)
    return found


def verdict_if(wrong, check, module, function, case=None):
    """The outcome where `wrong(right, ...)` is predicted with, and all else is as it was.

    In the prediction alone: a measurement or a tolerance that is wrong too would prove nothing.
    """
    right, predict = getattr(module, function), check.predict

    def mistaken(data):
        with mock.patch.object(module, function, functools.partial(wrong, right)):
            return predict(data)

    return verdict_on(type(check)(**(vars(check) | {"predict": mistaken})), case)
