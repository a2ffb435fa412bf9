"""The command line of the kit."""

import pytest

from ssl_zoo.conformance.__main__ import main, parse_arguments

SIMCLR = ["ssl_zoo.methods.simclr.SimCLR", "hidden_dim=16", "out_dim=8", "temperature=0.2"]


def test_a_sound_class_passes_every_check(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SIMCLR, "--backbone", "conv", "--no-learning"]) == 0
    out = capsys.readouterr().out
    assert "SimCLR/conv" in out
    assert "checks passed" in out


def test_a_faulty_class_fails(capsys: pytest.CaptureFixture[str]) -> None:
    path = "tests.conformance.test_checks.TwoViewsOnly"
    assert main([path, *SIMCLR[1:], "--backbone", "conv", "--no-learning"]) == 1
    assert "too many values to unpack" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["simcrl"], "did you mean simclr"),
        (["simclr", "hidden_dim=3"], "conf/method/simclr.yaml"),
        (["mlm", "--backbone", "conv"], "mlm takes text"),
        ([*SIMCLR[:-1]], "temperature"),
        ([*SIMCLR, "0.2"], "key=value"),
    ],
)
def test_mistakes_are_explained(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_values_are_read_as_yaml() -> None:
    assert parse_arguments(["a=3", "b=0.5", "c=[1, 2]", "d=true"]) == {"a": 3, "b": 0.5, "c": [1, 2], "d": True}
