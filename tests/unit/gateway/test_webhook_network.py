"""Connections go to the address that was checked, and to nothing else, also with TLS."""

from __future__ import annotations

import datetime
import ssl
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import httpcore
import pytest
import trio
import trio.testing
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from whatsappd.gateway.webhooks.network import AddressRefused, CheckedBackend
from whatsappd.gateway.webhooks.post import open_receiver

SECRET = "whsec_AAAA"


class Resolver:
    """Answers one list of addresses after the other, as a name that changes its mind does."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


class Recorder:
    """Stands where httpcore's own backend connects; nothing leaves this host."""

    def __init__(self) -> None:
        self.hosts: list[str] = []

    async def connect_tcp(self, host: str, *_: Any) -> Any:
        self.hosts.append(host)
        raise httpcore.ConnectError("recorded")


async def tried(resolver: Resolver, *, allow_private: bool = False) -> list[str]:
    backend = CheckedBackend(allow_private=allow_private, resolve=resolver)
    recorder = Recorder()
    backend._inner = recorder  # type: ignore[assignment]
    with pytest.raises(httpcore.ConnectError, match="recorded"):
        await backend.connect_tcp("hooks.shop.example", 443)
    return recorder.hosts


async def test_what_is_connected_to_is_the_address_that_was_checked() -> None:
    # Public when it is checked, loopback a moment later.
    resolver = Resolver(["93.184.216.34"], ["127.0.0.1"])
    assert await tried(resolver) == ["93.184.216.34"]
    assert len(resolver.asked) == 1


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["10.0.0.1", "fe80::1"],
        ["::ffff:169.254.169.254"],
        ["64:ff9b::7f00:1"],
        ["::"],
    ],
)
async def test_names_that_lead_to_us_are_refused(addresses: list[str]) -> None:
    backend = CheckedBackend(allow_private=False, resolve=Resolver(addresses))
    with pytest.raises(AddressRefused, match="not on the Internet"):
        await backend.connect_tcp("hooks.shop.example", 443)
    assert await tried(Resolver(addresses), allow_private=True) == addresses


async def test_of_several_addresses_only_the_public_ones_are_tried() -> None:
    found = await tried(Resolver(["10.0.0.1", "93.184.216.34", "::1", "2606:4700:4700::1111"]))
    assert found == ["93.184.216.34", "2606:4700:4700::1111"]
    assert len(await tried(Resolver([f"93.184.216.{n}" for n in range(50)]))) == 4


async def test_a_public_address_of_this_host_is_refused() -> None:
    mine, other = "93.184.216.34", "93.184.216.35"
    for addresses, expected in (([mine, other], [other]), ([mine], None)):
        backend = CheckedBackend(
            allow_private=False, resolve=Resolver(addresses), is_own=lambda each: each == mine
        )
        recorder = Recorder()
        backend._inner = recorder  # type: ignore[assignment]
        with pytest.raises(AddressRefused if expected is None else httpcore.ConnectError):
            await backend.connect_tcp("hooks.shop.example", 443)
        assert recorder.hosts == (expected or [])


#: Prints what `is_own_address` says in a network of its own, whose only interface has two public
#: addresses.
OWN_ADDRESSES = """
import sys
from whatsappd.gateway.webhooks.network import is_own_address
print(*(is_own_address(each) for each in sys.argv[1:]))
"""


def test_the_kernel_knows_which_addresses_are_ours() -> None:
    asked = ["93.184.216.34", "2606:4700::1", "93.184.216.35", "8.8.8.8", "2606:4700::2"]
    script = (
        "ip link set lo up && ip address add 93.184.216.34/24 dev lo && "
        "ip -6 address add 2606:4700::1/64 dev lo && ip route add default dev lo && "
        'exec "$@"'
    )
    inside = [sys.executable, "-c", OWN_ADDRESSES, *asked]
    done = subprocess.run(
        ["unshare", "--net", "--map-root-user", "sh", "-c", script, "sh", *inside],
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    if done.returncode and "unshare" in done.stderr + done.stdout:
        pytest.skip(f"no network namespace of one's own here: {done.stderr.strip()}")
    assert done.stderr == ""
    assert done.stdout.split() == ["True", "True", "False", "False", "False"]


async def test_a_resolver_that_hangs_takes_no_thread_of_others() -> None:
    release = threading.Event()

    def hang(_host: str, _port: int) -> list[str]:
        release.wait(20)
        return ["127.0.0.1"]

    backends = [CheckedBackend(allow_private=True, resolve=hang) for _ in range(60)]
    try:
        async with trio.open_nursery() as nursery:
            for backend in backends:
                for _ in range(3):  # a further one of the same webhook waits, without a thread
                    nursery.start_soon(backend.connect_tcp, "hooks.shop.example", 443)
            await trio.testing.wait_all_tasks_blocked()
            assert trio.to_thread.current_default_thread_limiter().borrowed_tokens == 0
            with trio.fail_after(5):
                await trio.to_thread.run_sync(int)
            # Whoever waited is free at once; the thread ends when the resolver does.
            nursery.cancel_scope.cancel()
        assert [backend._lookups.borrowed_tokens for backend in backends] == [1] * 60
    finally:
        release.set()


async def test_addresses_written_as_numbers_are_checked_too() -> None:
    for host in ("127.0.0.1", "::1", "169.254.169.254"):
        with pytest.raises(AddressRefused):
            await CheckedBackend(allow_private=False).connect_tcp(host, 80)


async def test_nothing_goes_to_a_unix_socket() -> None:
    with pytest.raises(AddressRefused):
        await CheckedBackend(allow_private=True).connect_unix_socket("/run/x.sock")


def certificate(directory: Path, name: str) -> Path:
    """A file with a key and a certificate for `name`, which signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = directory / f"{name}.pem"
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return file


@pytest.mark.parametrize("name", ["hooks.shop.example", "other.example"])
async def test_tls_is_for_the_name_while_the_connection_is_to_the_address(
    tmp_path: Path, nursery: trio.Nursery, name: str
) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate(tmp_path, name))
    asked: list[str | None] = []
    server.sni_callback = lambda _socket, sni, _context: asked.append(sni)

    async def answer(stream: trio.SSLStream[trio.SocketStream]) -> None:
        try:
            await stream.receive_some()
            await stream.send_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
        except trio.BrokenResourceError:
            pass  # the client did not believe the certificate

    [listener] = await trio.open_ssl_over_tcp_listeners(0, server, host="127.0.0.1")
    port = listener.transport_listener.socket.getsockname()[1]
    nursery.start_soon(trio.serve_listeners, answer, [listener])
    client = ssl.create_default_context(cafile=str(tmp_path / f"{name}.pem"))
    url = f"https://hooks.shop.example:{port}/"
    async with open_receiver(
        url,
        SECRET,
        allow_private=True,
        timeout_s=5,
        tls=client,
        resolve=Resolver(["127.0.0.1"]),
    ) as receiver:
        outcome = await receiver.post("evt_1_1", b"{}")
    assert asked == ["hooks.shop.example"]
    if name == "hooks.shop.example":
        assert (outcome.ok, outcome.status) == (True, 204)
    else:
        assert not outcome.ok
        assert outcome.error is not None
        assert outcome.error.startswith("TLS failed: CERTIFICATE_VERIFY_FAILED")
    nursery.cancel_scope.cancel()
