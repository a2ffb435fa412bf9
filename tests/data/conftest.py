"""A cache of its own for a test."""

from pathlib import Path

import pytest


@pytest.fixture
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`$SSL_ZOO_CACHE`, empty; no `$SSL_ZOO_DATA`."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("SSL_ZOO_CACHE", str(folder))
    monkeypatch.delenv("SSL_ZOO_DATA", raising=False)
    return folder
