"""One dataclass, one command line, one sentence for whatever is wrong with it."""

import dataclasses
import sys
import types

import numpy as np
import pytest

from rlkit.errors import UsageError
from rlkit.train.app import Options
from rlkit.train.flags import HelpRequested, check, flag, parse


@dataclasses.dataclass(frozen=True)
class Config:
    """Of these tests."""

    loss: str = flag("vicreg", "what is minimised", choices=("vicreg", "barlow_twins"))
    view: str | None = flag(None, "which", choices=("crop", "noise"))
    dim: int = flag(10, "embedding dimension", at_least=1)
    steps: int | None = flag(None, "updates", at_least=1)
    lr: float = flag(0.1, "learning rate", above=0)
    momentum: float | None = flag(None, "of sgd", at_least=0, at_most=0.999)
    control: bool = flag(True, "also run the control")
    fast: bool = flag(False, "do not wait")
    title: str = flag("", "of the figure")
    maybe: bool | None = flag(None, "decided by the experiment")

    def __post_init__(self):
        check(self)


PRESETS = {"quick": {}, "paper": {"dim": 2048, "lr": 0.3, "control": False}}


def config(*argv, presets=PRESETS):
    return parse(argv, Config, Options, presets=presets, usage="A study.")[0]


def changed(*argv) -> dict:
    default = dataclasses.asdict(Config())
    return {k: v for k, v in dataclasses.asdict(config(*argv)).items() if v != default[k]}


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([], {}),
        (["--loss=barlow_twins"], {"loss": "barlow_twins"}),
        (["--view=crop"], {"view": "crop"}),
        (["--dim=3"], {"dim": 3}),
        (["--dim", "3"], {"dim": 3}),
        (["-dim=3"], {"dim": 3}),
        (["--dim=3", "--dim=4"], {"dim": 4}),
        (["--steps=1000"], {"steps": 1000}),
        (["--lr=1e-3"], {"lr": 0.001}),
        (["--lr=2"], {"lr": 2.0}),
        (["--momentum=0"], {"momentum": 0.0}),
        (["--nocontrol"], {"control": False}),
        (["--control=false"], {"control": False}),
        (["--control"], {}),
        (["--fast"], {"fast": True}),
        (["--fast=true"], {"fast": True}),
        (["--nofast"], {}),
        (["--maybe"], {"maybe": True}),
        (["--nomaybe"], {"maybe": False}),
        (["--title=a: b=c, d"], {"title": "a: b=c, d"}),
        (["--title="], {}),
        (["--preset=quick"], {}),
        (["--preset=paper"], {"dim": 2048, "lr": 0.3, "control": False}),
        (["--preset=paper", "--dim=10", "--control"], {"lr": 0.3}),
        (["--dim=5", "--preset=paper"], {"dim": 5, "lr": 0.3, "control": False}),
    ],
)
def test_values(argv, expected):
    assert changed(*argv) == expected


def test_types_are_those_of_the_fields():
    found = config("--dim=3", "--lr=2", "--momentum=0", "--steps=7")
    assert [type(x) for x in (found.dim, found.lr, found.momentum, found.steps)] == [
        int,
        float,
        float,
        int,
    ]


def test_groups_are_apart():
    made, options = parse(["--dim=3", "--quiet", "--name=x"], Config, Options, presets=PRESETS)
    assert made == Config(dim=3)
    assert options == Options(quiet=True, name="x")


@pytest.mark.parametrize(
    ("arg", "sentence"),
    [
        ("--dmi=3", "there is no flag --dmi; did you mean --dim?"),
        ("--qwxyz=3", "there is no flag --qwxyz; --help lists those there are"),
        ("--di=3", "there is no flag --di; did you mean --dim?"),
        ("--undefok=qwxyz", "there is no flag --undefok; --help lists those there are"),
        ("--flagfile=/etc/passwd", "there is no flag --flagfile; --help lists those there are"),
        ("--dim=abc", "--dim=abc is not of type int"),
        ("--dim=1e3", "--dim=1e3 is not of type int"),
        ("--dim=1.5", "--dim=1.5 is not of type int"),
        ("--dim=", "--dim= is not of type int"),
        ("--steps=None", "--steps=None is not of type int"),
        ("--lr=1,5", "--lr=1,5 is not of type float"),
        ("--control=perhaps", "--control=perhaps is not of type bool"),
        ("--nocontrol=3", "--nocontrol=3 does not take an argument"),
        ("--lr", "--lr lacks its value; flags are written --name=value"),
        ("--dim=0", "--dim=0 must be at least 1"),
        ("--lr=0", "--lr=0.0 must be above 0"),
        ("--lr=-1", "--lr=-1.0 must be above 0"),
        ("--momentum=1", "--momentum=1.0 must be at most 0.999"),
        ("--lr=nan", "--lr=nan must be a finite number"),
        ("--lr=inf", "--lr=inf must be a finite number"),
        ("--momentum=-inf", "--momentum=-inf must be a finite number"),
        (
            "--loss=vicregs",
            "--loss=vicregs is none of vicreg, barlow_twins; did you mean vicreg?",
        ),
        ("--loss=zzz", "--loss=zzz is none of vicreg, barlow_twins"),
        ("--view=zzz", "--view=zzz is none of crop, noise"),
        ("--preset=huge", "--preset=huge is none of quick, paper"),
        ("left", "unexpected argument 'left'; flags are written --name=value"),
        ("dim=3", "unexpected argument 'dim=3'; flags are written --name=value"),
        ("--num_processes=0", "--num_processes=0 must be at least 1"),
    ],
)
def test_one_sentence_for_what_is_wrong(arg, sentence):
    with pytest.raises(UsageError) as caught:
        config(arg)
    assert str(caught.value) == sentence


def test_a_flag_is_not_the_value_of_another():
    for argv in (["--dim", "--steps=3"], ["--dim", "--fast"], ["--title", "--control"]):
        with pytest.raises(UsageError, match=f"^{argv[0]} lacks its value"):
            config(*argv)
    assert config("--fast", "--dim=3").fast
    assert config("--lr", "1", "--title", "dim").title == "dim"
    with pytest.raises(UsageError, match="--dim=-3 must be at least 1"):
        config("--dim", "-3")


def test_what_follows_a_bool_is_not_its_value():
    with pytest.raises(UsageError, match="unexpected argument 'false'"):
        config("--control", "false")


def test_a_preset_that_sets_no_flag_is_noticed():
    with pytest.raises(UsageError, match="--preset=typo sets dmi, which is no flag"):
        config("--preset=typo", presets={"quick": {}, "typo": {"dmi": 3}})


def test_without_presets_there_is_no_such_flag():
    assert config("--dim=3", presets=None) == Config(dim=3)
    with pytest.raises(UsageError, match="there is no flag --preset"):
        config("--preset=quick", presets=None)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"dim": "3"}, "--dim='3' is not of type int"),
        ({"dim": 3.0}, "--dim=3.0 is not of type int"),
        ({"dim": True}, "--dim=True is not of type int"),
        ({"dim": None}, "--dim=None is not of type int"),
        ({"lr": True}, "--lr=True is not of type float"),
        ({"lr": "0.1"}, "--lr='0.1' is not of type float"),
        ({"lr": np.nan}, "--lr=nan must be a finite number"),
        ({"control": 1}, "--control=1 is not of type bool"),
        ({"loss": None}, "--loss=None is not of type str"),
        ({"view": 3}, "--view=3 is not of type str"),
    ],
)
def test_a_notebook_is_held_to_the_same_rules(values, sentence):
    with pytest.raises(UsageError) as caught:
        Config(**values)
    assert str(caught.value) == sentence


def test_a_notebook_may_leave_out_a_point():
    assert Config(lr=1).lr == 1
    assert Config(lr=np.float64(0.5)).lr == 0.5


@pytest.mark.parametrize("arg", ["--help", "-h", "-help", "--helpfull"])
def test_help_is_short_and_tells_the_defaults(arg):
    with pytest.raises(HelpRequested) as caught:
        config("--dim=abc", arg)  # also where the rest is wrong
    text = str(caught.value)
    rows = [" ".join(line.split()) for line in text.splitlines()]
    assert rows[0] == "A study."
    assert "--preset=quick a set of values: quick, paper" in rows
    assert "--loss=vicreg what is minimised (vicreg, barlow_twins)" in rows
    assert "--dim=10 embedding dimension" in rows
    assert "--steps= updates" in rows
    assert "--[no]control also run the control (yes)" in rows
    assert "--fast do not wait" in rows
    assert "--out=runs folder that all runs go to" in rows
    fields = len(dataclasses.fields(Config)) + len(dataclasses.fields(Options))
    assert len(rows) <= fields + 6  # a line each
    assert max(map(len, text.splitlines())) <= 100


def test_annotations_may_be_strings(monkeypatch):
    # As in an experiment with `from __future__ import annotations`; rlkit itself does without.
    script = (
        "from __future__ import annotations\n"
        "import dataclasses\n"
        "from rlkit.train.flags import check, flag, parse\n"
        "@dataclasses.dataclass(frozen=True)\n"
        "class Config:\n"
        "    dim: int | None = flag(None, '', at_least=1)\n"
        "    def __post_init__(self): check(self)\n"
    )
    module = types.ModuleType("of_strings")
    monkeypatch.setitem(sys.modules, "of_strings", module)
    exec(script, module.__dict__)
    assert module.Config.__annotations__ == {"dim": "int | None"}
    assert parse(["--dim=3"], module.Config)[0].dim == 3
