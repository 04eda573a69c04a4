import dataclasses

import hypothesis
import hypothesis.strategies as st
import jax
import jaxtyping
import numpy as np
import pytest

from rlkit.theory.checks import Check, Outcome, Report, Verdict, judge, run, worst_of


def make(**changes):
    """Data are (predicted, measured, whether the assumption holds)."""
    check = Check(
        name="toy",
        source="Nobody 1900, Theorem 1 [nobody1900]",
        statement="measured <= predicted",
        data="numbers",
        cases={"quick": {"small": (1.0, 0.5, True)}, "paper": {"large": (10.0, 5.0, True)}},
        draw=lambda key, case: case,
        assumptions={"it holds": lambda data: data[2]},
        predict=lambda data: data[0],
        measure=lambda data: data[1],
        control=(1.0, 2.0, True),
    )
    return dataclasses.replace(check, **changes)


LAW = {"relation": "==", "tolerance": lambda data: 0.1}


@pytest.mark.parametrize(
    ("changes", "predicted", "measured", "verdict", "slack", "tightness"),
    [
        ({}, 2.0, 0.5, "holds", 1.5, 0.25),
        ({}, 2.0, 2.0, "holds", 0.0, 1.0),
        ({}, 2.0, 2.1, "violated", -0.1, 1.05),
        ({"tolerance": lambda data: 0.2}, 2.0, 2.1, "holds", -0.1, 1.05),
        ({"relation": ">="}, 2.0, 2.5, "holds", 0.5, 0.8),
        ({"relation": ">="}, 2.0, 1.0, "violated", -1.0, 2.0),
        ({"relation": ">=", "tolerance": lambda data: 1.0}, 2.0, 1.0, "holds", -1.0, 2.0),
        (LAW, 2.0, 2.05, "holds", 0.05, 0.5),
        (LAW, 2.0, 1.95, "holds", 0.05, 0.5),
        (LAW, 2.0, 1.7, "violated", -0.2, 3.0),
    ],
)
def test_verdict_slack_and_tightness(changes, predicted, measured, verdict, slack, tightness):
    outcome = judge(make(**changes), (predicted, measured, True))
    assert outcome.verdict == verdict
    np.testing.assert_allclose([outcome.slack, outcome.tightness], [slack, tightness], atol=1e-12)


def test_a_failed_assumption_is_named_and_nothing_is_computed():
    def explode(data):
        raise AssertionError("computed although the theorem does not apply")

    assumptions = {
        "it holds": lambda data: data[2],
        "always": lambda data: True,
        "never": lambda data: np.bool_(False),
    }
    outcome = judge(make(assumptions=assumptions, predict=explode), (1.0, 0.0, False))
    assert outcome == Outcome(Verdict.ASSUMPTION_FAILS, ("it holds", "never"))


@pytest.mark.parametrize(
    ("changes", "data", "verdict"),
    [
        ({"trivial": lambda data: 1.0}, (1.0, 0.5, True), "vacuous"),
        ({"trivial": lambda data: 1.0}, (0.9, 0.5, True), "holds"),
        ({"trivial": lambda data: 1.0}, (1.5, 1.6, True), "violated"),
        ({"relation": ">=", "trivial": lambda data: 0.0}, (-0.1, 0.5, True), "vacuous"),
        ({"relation": ">=", "trivial": lambda data: 0.0}, (0.1, 0.5, True), "holds"),
        # At most 1.1, tolerance included, is not less than the 1 that is known anyway.
        (
            {"tolerance": lambda data: 0.2, "trivial": lambda data: 1.0},
            (0.9, 1.05, True),
            "vacuous",
        ),
        ({"tolerance": lambda data: 0.2, "trivial": lambda data: 1.0}, (0.7, 0.8, True), "holds"),
        (
            {"relation": ">=", "tolerance": lambda data: 0.2, "trivial": lambda data: 0.0},
            (0.1, 0.5, True),
            "vacuous",
        ),
        ({"tolerance": lambda data: np.inf}, (1.0, 0.5, True), "vacuous"),
        (LAW | {"trivial": lambda data: 0.1}, (1.0, 1.0, True), "vacuous"),
        (LAW | {"trivial": lambda data: 0.2}, (1.0, 1.0, True), "holds"),
        ({}, (np.inf, 0.5, True), "vacuous"),
        ({"relation": ">="}, (-np.inf, 0.5, True), "vacuous"),
    ],
)
def test_bounds_that_say_nothing(changes, data, verdict):
    assert judge(make(**changes), data).verdict == verdict


@pytest.mark.parametrize(("predicted", "measured"), [(np.nan, 1.0), (1.0, np.nan)])
@pytest.mark.parametrize("changes", [{}, {"relation": ">="}, LAW], ids=["<=", ">=", "=="])
def test_nan_shows_nothing(changes, predicted, measured):
    outcome = judge(make(**changes), (predicted, measured, True))
    assert outcome.verdict == "violated"
    assert np.isnan(outcome.slack)


def test_times_that_never_come_agree():
    data = (np.array([1.0, np.inf]), np.array([1.05, np.inf]), True)
    outcome = judge(make(**LAW), data)
    assert outcome.verdict == "holds"
    assert outcome.worst == 0
    assert judge(make(**LAW), (data[0], np.array([1.0, 5.0]), True)).verdict == "violated"


def test_arrays_report_their_worst_entry():
    data = (np.array([[3.0, 1.0], [5.0, 9.0]]), np.array([[1.0, 0.9], [2.0, 2.0]]), True)
    outcome = judge(make(), data)
    assert outcome.verdict == "holds"
    assert outcome.worst == 1
    np.testing.assert_allclose(outcome.slack, 0.1)
    data[1][1, 0] = np.nan
    assert judge(make(), data).worst == 2
    data[1][1, 0] = 7.0
    outcome = judge(make(), data)
    assert (outcome.verdict, outcome.worst, outcome.slack) == ("violated", 2, -2)


def test_one_informative_entry_is_enough():
    check = make(trivial=lambda data: 1.0)
    assert judge(check, (np.array([2.0, 0.8]), np.zeros(2), True)).verdict == "holds"
    assert judge(check, (np.array([2.0, 1.0]), np.zeros(2), True)).verdict == "vacuous"


@pytest.mark.parametrize("measured", [np.zeros(3), 0.0])
def test_sides_of_different_shape_are_an_error(measured):
    with pytest.raises(ValueError, match="shapes"):
        judge(make(), (np.ones(2), measured, True))


def test_empty_sides_are_an_error():
    with pytest.raises(ValueError, match="not be empty"):
        judge(make(), (np.ones(0), np.ones(0), True))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"relation": "=="}, "tolerance"),
        ({"cases": {"quick": {"a": 1}}}, "grid"),
        ({"cases": {"quick": {"a": 1}, "paper": {}}}, "grid"),
    ],
)
def test_checks_that_cannot_be_judged_are_refused(changes, match):
    with pytest.raises(ValueError, match=match):
        make(**changes)


def test_an_unknown_relation_is_refused():
    with pytest.raises(jaxtyping.TypeCheckError, match="relation"):
        make(relation="<")


def test_run_covers_cases_and_seeds_with_the_same_keys():
    check = make(
        cases={"quick": {"a": 0.5, "b": 2.0}, "paper": {"c": 0.0}},
        draw=lambda key, case: (1.0, case * float(jax.random.uniform(key)), True),
        control=1e9,
    )
    report = run(check, seeds=3)
    assert list(report.outcomes) == ["a", "b"]
    measured = {k: [o.measured for o in seeds] for k, seeds in report.outcomes.items()}
    expected = [float(jax.random.uniform(jax.random.key(seed))) for seed in range(3)]
    np.testing.assert_allclose(measured["a"], 0.5 * np.array(expected), rtol=1e-6)
    np.testing.assert_allclose(measured["b"], 2 * np.array(expected), rtol=1e-6)
    assert len(report.control) == 3
    assert list(run(check, preset="paper").outcomes) == ["c"]


@pytest.mark.parametrize(
    ("control", "rejected"),
    [
        ((1.0, 2.0, True), True),  # violated
        ((1.0, 0.5, False), True),  # its assumption fails
        ((1.0, 0.5, True), False),  # holds
        ((np.inf, 0.5, True), False),  # vacuous: it was not seen
        ((1.0, np.nan, True), False),  # violated, but by no number
        ((np.ones(2), np.array([np.nan, 2.0]), True), True),  # one of the two is a number
    ],
)
def test_a_control_must_be_rejected(control, rejected):
    report = run(make(control=control))
    assert report.control_rejected == rejected
    assert report.passed == rejected


def test_a_control_must_be_rejected_under_every_seed():
    # 0.5 plus a uniform number exceeds the bound under some keys only.
    draw = {"draw": lambda key, case: (1.0, case + float(jax.random.uniform(key)), True)}
    cases = {"quick": {"a": -1.0}, "paper": {"a": -1.0}}
    report = run(make(**draw, cases=cases, control=0.5), seeds=8)
    assert {outcome.verdict for outcome in report.control} == {"holds", "violated"}
    assert not report.passed


@pytest.mark.parametrize(
    ("case", "passed"),
    [
        ((1.0, 2.0, True), False),
        ((1.0, 2.0, False), True),  # the theorem says nothing: no failure
        ((np.inf, 2.0, True), True),
    ],
)
def test_only_a_violation_fails_a_check(case, passed):
    cases = {"quick": {"good": (1.0, 0.5, True), "this": case}, "paper": {"this": case}}
    assert run(make(cases=cases)).passed == passed


def test_a_grid_that_meets_no_assumption_fails_a_check_and_embeddings_need_not_meet_any():
    grid = {"small": (1.0, 0.5, False), "large": (1.0, 0.5, False)}
    report = run(make(cases={"quick": grid, "paper": grid}))
    assert report.control_rejected
    assert not report.passed
    assert Report(report.check, report.outcomes, ()).passed  # nobody's control


def test_the_worst_of_several_seeds():
    data = {
        "holds": (1.0, 0.2, True),
        "barely": (1.0, 0.9, True),
        "vacuous": (np.inf, 0.0, True),
        "fails": (1.0, 0.0, False),
        "violated": (1.0, 1.1, True),
        "nan": (1.0, np.nan, True),
    }
    outcomes = [judge(make(), d) for d in data.values()]
    for last in range(1, len(outcomes) + 1):
        assert worst_of(tuple(outcomes[:last])) is outcomes[last - 1]
        assert worst_of(tuple(outcomes[:last][::-1])) is outcomes[last - 1]


@hypothesis.given(
    relation=st.sampled_from(["<=", ">="]),
    bound=st.floats(-1e6, 1e6),
    measured=st.floats(-1e6, 1e6),
)
def test_a_lower_bound_is_an_upper_bound_of_the_negative(relation, bound, measured):
    other = "<=" if relation == ">=" else ">="
    one = judge(make(relation=relation), (bound, measured, True))
    two = judge(make(relation=other), (-bound, -measured, True))
    assert one.verdict == two.verdict
    assert one.slack == two.slack
    assert (one.verdict == "holds") == (one.slack >= 0)
