import json

import jax
import numpy as np

from rlkit.theory.checks import Verdict, judge
from theory_checks import stepwise
from theory_checks.__main__ import main


def test_the_law_holds_and_its_controls_are_rejected(tmp_path):
    assert main(["--only=stepwise", "--seeds=1", f"--out={tmp_path}"]) == 0
    checks = json.loads((tmp_path / "results.json").read_text())["checks"]
    assert len(checks) == 3
    for check in checks.values():
        assert check["control_rejected"]
        assert {o["verdict"] for case in check["cases"].values() for o in case} == {"holds"}


def test_a_wrong_law_is_violated():
    """A factor of two in the time's denominator, as with the loss halved, does not get through."""
    check = stepwise.CHECKS[0]
    with jax.enable_x64(True):
        run = check.draw(jax.random.key(0), next(iter(check.cases["quick"].values())))
        right = judge(check, run)
        wrong = type(check)(**(vars(check) | {"predict": lambda data: 2 * check.predict(data)}))
        assert right.verdict == Verdict.HOLDS
        assert judge(wrong, run).verdict == Verdict.VIOLATED
    assert np.max(np.abs(right.measured / right.predicted - 1)) < 1e-4
