"""Fixtures for the tests of the core."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from driving import in_threads, on_the_loop


@pytest.fixture(params=[in_threads, on_the_loop], ids=["threads", "loop"])
def pump(request: pytest.FixtureRequest) -> Callable[..., list]:
    """`pump(backend, flows, until=None, **options)`: the events of the flows. One test per driver."""
    return request.param


@pytest.fixture
def no_file(tmp_path, monkeypatch):
    """The command without a configuration file or a model of the environment's; the folder where the file would be."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("SOT_CONFIG", raising=False)
    monkeypatch.delenv("SOT_MODEL", raising=False)
    return tmp_path
