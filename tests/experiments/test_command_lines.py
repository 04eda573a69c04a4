"""What every experiment's command owes, whoever adds one."""

import dataclasses
import importlib
from pathlib import Path

import pytest

import experiments

NAMES = sorted(p.stem for p in Path(experiments.__path__[0]).glob("[a-z]*.py"))


@pytest.fixture(params=NAMES)
def study(request):
    return importlib.import_module(f"experiments.{request.param}")


def test_help_is_short_and_names_every_flag(study, capsys):
    assert study.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert len(text.splitlines()) < 75
    for field in dataclasses.fields(study.Config):
        assert f"--{field.name}" in text or f"--[no]{field.name}" in text


def test_presets_are_configurations_again_when_nothing_is_left_open(study):
    assert "quick" in study.PRESETS
    resolve = getattr(study, "resolve", lambda config: config)
    for preset in study.PRESETS.values():
        config = resolve(study.Config(**preset))
        assert study.Config(**dataclasses.asdict(config)) == config


def test_a_flag_that_is_none_gets_one_sentence_and_exit_code_2(study, capsys):
    assert study.main(["--sedes=3"]) == 2
    said = capsys.readouterr().err
    assert "--sedes" in said
    assert said.count("\n") == 1
