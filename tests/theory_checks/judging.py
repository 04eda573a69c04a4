"""What the tests of all checks ask of a check."""

import functools
from unittest import mock

import jax

from rlkit.theory.checks import Verdict, judge


def outcome(check, case=None, seed=0):
    """Judges a case (by default the first quick one) in double precision."""
    if case is None:
        case = next(iter(check.cases["quick"].values()))
    with jax.enable_x64(True):
        return judge(check, check.draw(jax.random.key(seed), case))


def assert_holds_and_sees(check, case=None, control=None):
    """The case holds, and the control is rejected by the numbers."""
    found = outcome(check, case)
    assert found.verdict == Verdict.HOLDS, (check.name, found)
    control = outcome(check, check.control if control is None else control)
    assert control.verdict == Verdict.VIOLATED, (check.name, control)
    return found


def named(checks, name):
    """The one check whose name ends like this."""
    (check,) = [check for check in checks if check.name.endswith(name)]
    return check


def outcome_if(wrong, check, module, function, case=None):
    """The outcome where `wrong(right, ...)` is predicted with, and all else is as it was.

    In the prediction alone: a measurement or a tolerance that is wrong too would prove nothing.
    """
    right, predict = getattr(module, function), check.predict

    def mistaken(data):
        with mock.patch.object(module, function, functools.partial(wrong, right)):
            return predict(data)

    return outcome(type(check)(**(vars(check) | {"predict": mistaken})), case)
