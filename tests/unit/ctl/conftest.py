"""Fixtures for `whatsappctl`: a daemon with scripted answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from scripted_daemon import Daemon


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))
    yield
    structlog.reset_defaults()


@pytest.fixture
def daemon(tmp_path: Path) -> Daemon:
    return Daemon(str(tmp_path / "d.sock"))
