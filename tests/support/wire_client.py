"""A client of the wire protocol in a few lines, for what real clients never do on demand.

It speaks plain WebSocket, Noise and stanzas, pairs with keys of its own, and encrypts nothing end
to end: the server cannot tell.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Self

import trio
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from whatsappd.model.jid import Jid
from whatsappd.sandbox.neonize_library.token_extraction import cache_file, library_path, read_cache
from whatsappd.sandbox.protocol import protobuf
from whatsappd.sandbox.protocol.node import SERVER, Attrs, Node
from whatsappd.sandbox.protocol.noise_frames import NoiseFrameReader, frame
from whatsappd.sandbox.protocol.stanza_codec import StanzaCodec
from whatsappd.sandbox.protocol.xeddsa import XEdDsaSigner
from whatsappd.sandbox.server.sandbox import Sandbox

#: The stream header: protocol version 6, dictionary version 3.
HEADER = b"WA\x06\x03"
#: The phones of the tests.
ACME, GLOBEX = "+15550100", "+15550101"


class NoiseClient:
    """The client's side, written down from the Noise specification and not from the server's."""

    def __init__(self, static: X25519PrivateKey | None = None, prologue: bytes = HEADER) -> None:
        self.ephemeral = X25519PrivateKey.generate()
        self.static = static or X25519PrivateKey.generate()
        self.h = self.ck = b"Noise_XX_25519_AESGCM_SHA256".ljust(32, b"\0")
        self.mix_hash(prologue)
        self.k, self.n = self.h, 0

    def mix_hash(self, data: bytes) -> None:
        self.h = hashlib.sha256(self.h + data).digest()

    def mix_key(self, private: X25519PrivateKey, public: bytes) -> None:
        secret = private.exchange(X25519PublicKey.from_public_bytes(public))
        self.ck, self.k = self.hkdf(secret)
        self.n = 0

    def hkdf(self, secret: bytes) -> tuple[bytes, bytes]:
        temp = hmac.digest(self.ck, secret, "sha256")
        one = hmac.digest(temp, b"\1", "sha256")
        return one, hmac.digest(temp, one + b"\2", "sha256")

    def nonce(self) -> bytes:
        self.n += 1
        return bytes(8) + (self.n - 1).to_bytes(4, "big")

    def decrypt(self, data: bytes) -> bytes:
        plain = AESGCM(self.k).decrypt(self.nonce(), data, self.h)
        self.mix_hash(data)
        return plain

    def encrypt(self, data: bytes) -> bytes:
        cipher = AESGCM(self.k).encrypt(self.nonce(), data, self.h)
        self.mix_hash(cipher)
        return cipher

    def hello(self) -> bytes:
        public = self.ephemeral.public_key().public_bytes_raw()
        self.mix_hash(public)
        return protobuf.encode({2: protobuf.encode({1: public})})

    def finish(self, answer: bytes, payload: bytes) -> tuple[bytes, bytes, bytes]:
        """The last message, the server's static key, and its certificate chain."""
        hello = protobuf.decode(answer).message(3)
        self.mix_hash(hello.data(1))
        self.mix_key(self.ephemeral, hello.data(1))
        server_static = self.decrypt(hello.data(2))
        self.mix_key(self.ephemeral, server_static)
        chain = self.decrypt(hello.data(3))
        static = self.encrypt(self.static.public_key().public_bytes_raw())
        self.mix_key(self.static, hello.data(1))
        finish = protobuf.encode({1: static, 2: self.encrypt(payload)})
        return protobuf.encode({4: finish}), server_static, chain


def websocket_frame(payload: bytes, opcode: int = 2, *, final: bool = True) -> bytes:
    """A client's WebSocket frame: masked."""
    size = len(payload)
    head = bytes([opcode | (0x80 if final else 0)])
    if size < 126:
        head += bytes([0x80 | size])
    elif size < 65536:
        head += bytes([0x80 | 126]) + size.to_bytes(2, "big")
    else:
        head += bytes([0x80 | 127]) + size.to_bytes(8, "big")
    mask = os.urandom(4)
    key = int.from_bytes((mask * (size // 4 + 1))[:size], "big")
    return head + mask + (int.from_bytes(payload, "big") ^ key).to_bytes(size, "big")


class WireClient:
    """One device: its keys, and its connection while it has one."""

    def __init__(self, port: int, directory: Path) -> None:
        """Args:
        port: the sandbox's.
        directory: the sandbox's, which has the dictionary.
        """
        self.port = port
        dictionary = read_cache(cache_file(directory, library_path()))
        assert dictionary is not None
        self.codec = StanzaCodec(dictionary)
        self.static = X25519PrivateKey.generate()
        self.identity = XEdDsaSigner()
        self.jid: Jid | None = None
        self.lid: Jid | None = None
        self._ids = 0

    # --- the connection -----------------------------------------------------------------------

    async def connect(self, payload: bytes) -> None:
        self._stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        key = base64.b64encode(os.urandom(16)).decode()
        await self._stream.send_all(
            b"GET /ws/chat HTTP/1.1\r\nHost: web.whatsapp.com\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: " + key.encode() + b"\r\n\r\n"
        )
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += await self._stream.receive_some()
        assert b" 101 " in answer
        self._rest = answer.partition(b"\r\n\r\n")[2]
        self._reader = NoiseFrameReader()
        self._reader.feed(HEADER)
        self._frames: list[bytes] = []
        noise = NoiseClient(self.static)
        await self._stream.send_all(websocket_frame(HEADER + frame(noise.hello())))
        last, _, _ = noise.finish(await self._receive_frame(), payload)
        await self._stream.send_all(websocket_frame(frame(last)))
        send, receive = noise.hkdf(b"")
        self._send_key, self._receive_key = AESGCM(send), AESGCM(receive)
        self._sent = self._received = 0

    async def _receive_frame(self) -> bytes:
        while not self._frames:
            payload = self._take_message()
            if payload is None:
                data = await self._stream.receive_some()
                if not data:
                    raise EOFError
                self._rest += data
            else:
                self._frames += self._reader.feed(payload)
        return self._frames.pop(0)

    def _take_message(self) -> bytes | None:
        data = self._rest
        if len(data) < 2 or len(data) < (width := {126: 4, 127: 10}.get(data[1], 2)):
            return None
        size = int.from_bytes(data[2:width], "big") if width > 2 else data[1]
        if len(data) < width + size:
            return None
        self._rest = data[width + size :]
        return data[width : width + size] if data[0] == 0x82 else b""

    async def send(self, *nodes: Node) -> None:
        """Send stanzas in one WebSocket message."""
        await self.send_encoded(*map(self.codec.encode, nodes))

    async def send_encoded(self, *stanzas: bytes) -> None:
        """As `send`, with bytes that need not be stanzas."""
        frames = b""
        for stanza in stanzas:
            nonce = self._sent.to_bytes(12, "big")
            self._sent += 1
            frames += frame(self._send_key.encrypt(nonce, stanza, None))
        await self._stream.send_all(websocket_frame(frames))

    async def send_frame(self, payload: bytes) -> None:
        """Send a frame of any bytes, which need not be encrypted."""
        await self._stream.send_all(websocket_frame(frame(payload)))

    async def receive(self) -> Node:
        """The next stanza. Raises: EOFError: the server closed."""
        with trio.fail_after(10):
            nonce = self._received.to_bytes(12, "big")
            self._received += 1
            return self.codec.decode(
                self._receive_key.decrypt(nonce, await self._receive_frame(), None)
            )

    async def expect(self, tag: str) -> Node:
        """The next stanza with this tag; others are dropped."""
        while (node := await self.receive()).tag != tag:
            pass
        return node

    async def request(self, namespace: str, kind: str, *content: Node, **attrs: Any) -> Node:
        """Ask the server; its answer. Other stanzas that come meanwhile are dropped."""
        self._ids += 1
        number = f"r{self._ids}"
        asked: Attrs = {"id": number, "xmlns": namespace, "type": kind, "to": SERVER, **attrs}
        await self.send(Node("iq", asked, list(content)))
        while (answer := await self.expect("iq")).text("id") != number:
            pass
        return answer

    async def close(self) -> None:
        await trio.aclose_forcefully(self._stream)

    # --- what clients do ----------------------------------------------------------------------

    async def pair(self, sandbox: Sandbox, phone: str) -> Self:
        """Be linked to a phone; the connection is closed afterwards."""
        qr = await self.offer()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(sandbox.scan, qr, phone)
            await self.confirm()
        await self.close()
        return self

    async def offer(self) -> str:
        """Come to be paired; what the QR code says."""
        skey = X25519PrivateKey.generate().public_key().public_bytes_raw()
        registration = protobuf.encode(
            {
                1: b"\0\0\0\7",
                2: b"\5",
                3: self.identity.public,
                4: b"\0\0\1",
                5: skey,
                6: self.identity.sign(b"\5" + skey),
            }
        )
        await self.connect(protobuf.encode({19: registration}))
        offered = await self.expect("iq")
        pairing = offered.child("pair-device")
        assert pairing is not None
        await self.send(Node("iq", {"type": "result", "id": offered.text("id"), "to": SERVER}))
        secret = os.urandom(32)
        keys = (self.static.public_key().public_bytes_raw(), self.identity.public, secret)
        return ",".join(
            [pairing.children[0].data.decode(), *(base64.b64encode(key).decode() for key in keys)]
        )

    async def confirm(self) -> None:
        """Agree to be linked, after the code was scanned."""
        asked = await self.expect("iq")
        success = asked.child("pair-success")
        assert success is not None
        identity, device = success.child("device-identity"), success.child("device")
        assert identity is not None
        assert device is not None
        self.jid, self.lid = device.jid("jid"), device.jid("lid")
        signed = protobuf.decode(protobuf.decode(identity.data).data(1))
        message = b"\6\1" + signed.data(1) + self.identity.public + signed.data(2)
        answer = {1: signed.data(1), 3: signed.data(3), 4: self.identity.sign(message)}
        content = Node("device-identity", {"key-index": "1"}, protobuf.encode(answer))
        await self.send(
            Node(
                "iq",
                {"type": "result", "id": asked.text("id"), "to": SERVER},
                [Node("pair-device-sign", {}, [content])],
            )
        )
        assert (await self.expect("stream:error")).text("code") == "515"

    def login_payload(self, *, passive: bool = True) -> bytes:
        assert self.jid is not None
        return protobuf.encode({1: int(self.jid.user), 3: int(passive), 18: self.jid.device})

    async def log_in(self, *, active: bool = True) -> Self:
        """Connect as the linked device, and take what waited if `active`."""
        await self.connect(self.login_payload())
        await self.expect("success")
        if active:
            await self.request("passive", "set", Node("active"))
        return self

    async def upload_keys(self, count: int) -> None:
        skey = os.urandom(32)
        keys = [
            Node(
                "key",
                {},
                [Node("id", {}, n.to_bytes(3, "big")), Node("value", {}, os.urandom(32))],
            )
            for n in range(1, count + 1)
        ]
        answer = await self.request(
            "encrypt",
            "set",
            Node("registration", {}, b"\0\0\0\7"),
            Node("type", {}, b"\5"),
            Node("identity", {}, self.identity.public),
            Node("list", {}, keys),
            Node(
                "skey",
                {},
                [
                    Node("id", {}, b"\0\0\1"),
                    Node("value", {}, skey),
                    Node("signature", {}, self.identity.sign(b"\5" + skey)),
                ],
            ),
        )
        assert answer.text("type") == "result"

    def message(self, to: Jid, number: str, *devices: Jid) -> Node:
        """A direct message whose ciphertext is its number."""
        encs = [
            Node("to", {"jid": device}, [Node("enc", {"v": "2", "type": "msg"}, number.encode())])
            for device in devices
        ]
        return Node(
            "message",
            {"id": number, "to": to, "type": "text"},
            [Node("participants", {}, encs)],
        )

    async def acknowledge(self, message: Node) -> None:
        """Send the delivery receipt of a message."""
        sender = message.jid("from")
        assert sender is not None
        await self.send(Node("receipt", {"id": message.text("id"), "to": sender}))


#: Makes a client without an account.
NewClient = Callable[[], WireClient]
#: Makes a client that is linked to the phone of that number and logged in.
LinkClient = Callable[[str], Awaitable[WireClient]]


async def until(sandbox: Sandbox, condition: Callable[[], bool]) -> None:
    """Wait until `condition`, which asks something of the sandbox's stats, holds."""
    with trio.fail_after(10):
        await sandbox.wait_until(condition)
