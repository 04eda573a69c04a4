"""How the tests of the checks ask for a verdict."""

import jax

from rlkit.theory.checks import judge


def named(checks, name):
    """The one check of that name."""
    (check,) = [check for check in checks if check.name == name]
    return check


def verdict_on(check, case=None, seed=0):
    """The outcome for a case (default: the first of the quick grid), in double precision."""
    case = next(iter(check.cases["quick"].values())) if case is None else case
    with jax.enable_x64(True):
        return judge(check, check.draw(jax.random.key(seed), case))
