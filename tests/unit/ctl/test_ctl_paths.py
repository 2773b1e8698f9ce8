"""Where client and daemon look for each other when nobody says."""

from __future__ import annotations

from pathlib import Path

import pytest

from whatsappd.model import paths


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch):
    for name in ("WHATSAPPD_SOCKET", "WHATSAPPD_STATE_DIR", "XDG_RUNTIME_DIR", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/user")
    monkeypatch.setattr("os.geteuid", lambda: 1000)


def test_root_uses_the_systems_places(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert paths.default_socket() == "/run/whatsappd/whatsappd.sock"
    assert paths.default_state_dir() == "/var/lib/whatsappd"


def test_a_user_has_places_of_their_own(monkeypatch: pytest.MonkeyPatch):
    assert paths.default_state_dir() == "/home/user/.local/state/whatsappd"
    assert paths.default_socket() == "/home/user/.local/state/whatsappd/whatsappd.sock"
    monkeypatch.setenv("XDG_STATE_HOME", "/states")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    assert paths.default_state_dir() == "/states/whatsappd"
    assert paths.default_socket() == "/run/user/1000/whatsappd/whatsappd.sock"


def test_relative_xdg_directories_do_not_count(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_STATE_HOME", "states")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "run")
    assert paths.default_socket() == "/home/user/.local/state/whatsappd/whatsappd.sock"


def test_the_environment_wins(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WHATSAPPD_SOCKET", "/a")
    monkeypatch.setenv("WHATSAPPD_STATE_DIR", "/b")
    assert paths.default_socket() == paths.socket_to_reach() == "/a"
    assert paths.default_state_dir() == "/b"


def test_a_client_falls_back_to_the_systems_daemon(tmp_path: Path, monkeypatch):
    system = tmp_path / "system.sock"
    monkeypatch.setattr(paths, "SYSTEM_SOCKET", str(system))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    own = tmp_path / "whatsappd" / "whatsappd.sock"
    assert paths.socket_to_reach() == str(own)
    system.touch()
    assert paths.socket_to_reach() == str(system)
    own.parent.mkdir()
    own.touch()
    assert paths.socket_to_reach() == str(own)
