"""Our SimCLR takes the training steps of lightly's parts in a plain loop, whatever its settings."""

import sys
from pathlib import Path

import pytest
from hydra import initialize_config_dir

from ssl_zoo.config import CONF

sys.path.insert(0, str(CONF.parent / "benchmarks"))
import parity


@pytest.mark.parametrize("name", parity.SWITCHES)
def test_steps_are_those_of_the_reference(
    name: str, data_root: Path, cache_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_ZOO_DATA", str(data_root))
    monkeypatch.setenv("SSL_ZOO_CACHE", str(cache_root))
    with initialize_config_dir(str(CONF), version_base="1.3"):
        first_loss, after_one, after_two, rounding = parity.compare_steps(parity.SWITCHES[name], 2, 8)
    assert first_loss < 1e-5
    assert max(after_one, after_two) < max(2e-5, 10 * rounding)
