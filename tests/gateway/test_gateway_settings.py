"""Where the gateway may listen; and the small decisions on the way, one by one."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from whatsappd.errors import AlreadyRunning, Denied, InvalidParams
from whatsappd.gateway.auth import (
    FAILURE_PERIOD,
    MAX_ADDRESSES,
    MAX_FAILURES,
    Failures,
    Identity,
    presented_key,
)
from whatsappd.gateway.listener import open_socket
from whatsappd.gateway.sessions import chosen_format, image
from whatsappd.gateway.settings import GatewaySettings, parse_bind

CERTIFICATE = {"tls_cert": Path("c.pem"), "tls_key": Path("k.pem")}


@pytest.mark.parametrize(
    ("bind", "options", "refused"),
    [
        ("127.0.0.1:8080", {}, None),
        ("127.3.2.1:8080", {"no_auth": True}, None),
        ("[::1]:8080", {"no_auth": True}, None),
        ("localhost:0", {}, None),
        ("unix:/run/gateway.sock", {"no_auth": True}, None),
        ("0.0.0.0:8080", {}, "bind"),
        ("[::]:8080", {}, "bind"),
        ("192.0.2.1:443", {}, "bind"),
        ("192.0.2.1:443", CERTIFICATE, None),
        ("192.0.2.1:443", {"allow_public": True}, None),
        ("192.0.2.1:443", {**CERTIFICATE, "no_auth": True}, "no-auth"),
        ("192.0.2.1:443", {"allow_public": True, "no_auth": True}, "no-auth"),
        ("127.0.0.1:443", {"tls_cert": Path("c.pem")}, "tls-cert"),
        ("192.0.2.1:443", {"tls_key": Path("k.pem")}, "tls-cert"),
        ("127.0.0.1:443", {"socket_group": "www-data"}, "socket-group"),
        ("unix:/run/gateway.sock", {"socket_group": "www-data"}, None),
    ],
)
def test_a_public_address_needs_tls_and_keys(bind: str, options, refused: str | None) -> None:
    settings = GatewaySettings(parse_bind(bind), Path("/d.sock"), **options)
    if refused is None:
        settings.check()
        return
    with pytest.raises(InvalidParams) as error:
        settings.check()
    assert error.value.data["field"] == refused


@pytest.mark.parametrize(
    "text", ["", "8080", "example.org:80", "127.0.0.1", "127.0.0.1:99999", "127.0.0.1:x",
             "unix:relative", "127.0.0.1:²"]
)  # fmt: skip
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidParams):
        parse_bind(text)


def test_the_command_refuses_with_the_usage_code() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "whatsappd", "gateway", "--bind", "0.0.0.0:0"],
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert done.returncode == 2
    assert "--tls-cert" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_address_that_is_taken_is_somebody_s(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(AlreadyRunning):
            open_socket(parse_bind(f"127.0.0.1:{port}"))
    bind = parse_bind(f"unix:{tmp_path}/g.sock")
    with open_socket(bind):
        assert (tmp_path / "g.sock").stat().st_mode & 0o777 == 0o660
        with pytest.raises(AlreadyRunning):
            open_socket(bind)
    # What a killed gateway left behind is replaced.
    with open_socket(bind):
        pass
    (tmp_path / "file").touch()
    with pytest.raises((AlreadyRunning, InvalidParams)):
        open_socket(parse_bind(f"unix:{tmp_path}/file"))
    assert (tmp_path / "file").exists()


def test_a_group_that_does_not_exist_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(InvalidParams, match="no group 'nobody-s'") as refused:
        open_socket(parse_bind(f"unix:{tmp_path}/g.sock"), "nobody-s")
    assert refused.value.data["field"] == "socket-group"
    assert not (tmp_path / "g.sock").exists()


async def test_wrong_keys_make_an_address_wait(autojump_clock) -> None:
    failures = Failures()
    for number in range(MAX_FAILURES):
        assert failures.wait("192.0.2.1") == 0
        failures.add("::ffff:192.0.2.1" if number % 2 else "192.0.2.1")
        failures.add("2001:db8::1")
    assert failures.wait("192.0.2.1") == FAILURE_PERIOD
    assert failures.wait("192.0.2.2") == 0
    assert failures.wait("2001:db8::ffff") == FAILURE_PERIOD  # the same /64
    assert failures.wait("2001:db8:0:1::1") == 0
    await trio.sleep(FAILURE_PERIOD - 1)
    assert failures.wait("192.0.2.1") == 1
    await trio.sleep(1)
    assert failures.wait("192.0.2.1") == 0


async def test_addresses_are_bounded(autojump_clock, monkeypatch) -> None:
    monkeypatch.setattr("whatsappd.gateway.auth.MAX_ADDRESSES", 10)
    failures = Failures()
    for number in range(100):
        failures.add(f"192.0.2.{number}")
    assert len(failures._times) == 10
    assert MAX_ADDRESSES > 10


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ({}, None),
        ({"authorization": "Bearer wak_a"}, "wak_a"),
        ({"authorization": "bearer  wak_a "}, "wak_a"),
        ({"authorization": "Basic wak_a"}, None),
        ({"authorization": "Bearer"}, None),
        ({"sec-websocket-protocol": "whatsappd.v1, bearer.wak_a"}, "wak_a"),
        ({"sec-websocket-protocol": "whatsappd.v1"}, None),
    ],
)
def test_a_key_is_found_wherever_it_may_stand(headers: dict[str, str], key: str | None) -> None:
    assert presented_key(headers) == key


def test_an_identity_looks_at_its_own_companies_only() -> None:
    everybody = Identity("key:a", "a", "admin", None)
    bound = Identity("key:b", "b", "read", frozenset({"acme", "globex"}))
    assert everybody.among(None) is None
    assert everybody.among([]) is None
    assert everybody.among(["x"]) == ["x"]
    assert bound.among(None) == ["acme", "globex"]
    assert bound.among(["acme"]) == ["acme"]
    with pytest.raises(Denied):
        bound.among(["acme", "x"])
    with pytest.raises(Denied):
        bound.check_scope("send")
    assert everybody.consumer("crm") == "crm"
    assert bound.consumer("crm") == "crm"  # the daemon gives each key names of its own


@pytest.mark.parametrize("name", ["key:b:crm", "uid:1000:crm", "webhook:abcd1234", "key:"])
@pytest.mark.parametrize("companies", [None, frozenset({"acme"})])
def test_nobody_comes_near_the_consumers_of_others(
    name: str, companies: frozenset[str] | None
) -> None:
    with pytest.raises(InvalidParams) as refused:
        Identity("key:a", "a", "admin", companies).consumer(name)
    assert refused.value.data["field"] == "consumer"


@pytest.mark.parametrize(
    ("asked", "accept", "chosen"),
    [
        (None, "", "json"),
        (None, "*/*", "json"),
        (None, "image/png", "png"),
        (None, "image/svg+xml, image/png;q=0.5", "svg"),
        (None, "text/html, image/*;q=0.5", "json"),
        (None, "text/plain;q=nonsense", "json"),
        ("svg", "image/png", "svg"),
    ],
)
def test_the_form_of_a_code_is_negotiated(asked: str | None, accept: str, chosen: str) -> None:
    assert chosen_format(asked, accept) == chosen


def test_codes_are_drawn() -> None:
    assert image("x" * 250, "png").startswith(b"\x89PNG")
    assert b"<svg" in image("x" * 250, "svg")
