import dataclasses

import jax
import pytest

from rlkit.theory import spectral_contrastive as theory
from rlkit.theory.checks import Verdict, judge
from tests.theory_checks.verdicts import verdict_on
from theory_checks import spectral_contrastive as checks

CHECKS = {check.name.removeprefix("spectral contrastive: "): check for check in checks.CHECKS}
FACTORISATION, LEAST, PROBES = CHECKS
SMALL = {
    FACTORISATION: checks.Case(pairs=400),
    LEAST: checks.Case(pairs=400),
    PROBES: checks.Case(bridge=0.5),
}


@pytest.mark.parametrize("name", CHECKS)
def test_the_theorem_holds_and_its_control_is_rejected(name):
    check = CHECKS[name]
    good, bad = (
        verdict_on(check, case)
        for case in (SMALL[name], dataclasses.replace(check.control, pairs=400))
    )
    assert good.verdict == Verdict.HOLDS
    assert bad.verdict == Verdict.VIOLATED  # by the numbers
    if name == LEAST:
        assert good.tightness > 0.999


@pytest.mark.parametrize(
    ("name", "function", "wrong"),
    [
        (FACTORISATION, "loss_by_factorisation", lambda p: p / 2),
        (LEAST, "minimum", lambda p: p / 2),
        (PROBES, "probe_residual_bound", lambda p: p / 2),
    ],
)
def test_a_wrong_constant_is_seen(monkeypatch, name, function, wrong):
    check = CHECKS[name]
    # With one eigenvector for two cliques the bound on the residual is nearly attained.
    case = checks.Case(cliques=2, size=12, k=1) if name == PROBES else SMALL[name]
    with jax.enable_x64(True):
        data = check.draw(jax.random.key(0), case)
        assert judge(check, data).verdict in (Verdict.HOLDS, Verdict.VACUOUS)
        right = getattr(theory, function)
        monkeypatch.setattr(theory, function, lambda *a, **k: wrong(right(*a, **k)))
        assert judge(check, data).verdict == Verdict.VIOLATED


@pytest.mark.slow
def test_digits_and_their_neighbours():
    data = checks.connect(jax.random.key(0), checks.Case(digits=300, k=100))
    found = judge(CHECKS[PROBES], data)
    assert found.verdict == Verdict.HOLDS
    assert found.predicted[1] < checks._ignorant(data)[1] / 2
