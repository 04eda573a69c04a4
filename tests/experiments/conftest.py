"""What the tests of the studies share."""

import pytest


@pytest.fixture
def refused(tmp_path, capsys):
    """Holds a refusal to what it owes: an exit code, one sentence, and nothing written."""

    def hold(code, says, *, wanted=2):
        assert code == wanted
        said = capsys.readouterr().err
        assert says in said
        assert said.startswith("error: ")
        assert said.count("\n") == 1
        assert not list(tmp_path.rglob("config.json"))

    return hold
