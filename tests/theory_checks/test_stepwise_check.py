import jax
import numpy as np

from rlkit.theory.checks import Verdict, judge, run
from tests.marks import slow_but_first
from theory_checks import stepwise


@slow_but_first("check", stepwise.CHECKS, ids=[check.name for check in stepwise.CHECKS])
def test_the_law_holds_and_its_control_is_rejected(check):
    with jax.enable_x64(True):
        found = run(check, seeds=1)
    assert found.control_rejected
    assert {o.verdict for case in found.outcomes.values() for o in case} == {Verdict.HOLDS}


def test_a_wrong_law_is_violated():
    """A factor of two in the time's denominator, as with the loss halved, does not get through."""
    check = stepwise.CHECKS[0]
    with jax.enable_x64(True):
        data = check.draw(jax.random.key(0), next(iter(check.cases["quick"].values())))
        right = judge(check, data)
        wrong = type(check)(**(vars(check) | {"predict": lambda data: 2 * check.predict(data)}))
        assert right.verdict == Verdict.HOLDS
        assert judge(wrong, data).verdict == Verdict.VIOLATED
    assert np.max(np.abs(right.measured / right.predicted - 1)) < 1e-4
