"""What a client is, right after its handshake: a linked device that logs in, or a new one.

`ClientPayload` (waWa6) tells: with a user name it is a login, without one the device wants to be
paired, brings its keys, and is offered to the phones (`phone`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from whatsappd.model.jid import USER_SERVER, Jid
from whatsappd.sandbox.phones.pairing import offer
from whatsappd.sandbox.protocol import protobuf
from whatsappd.sandbox.protocol.stanza import Attrs, Node
from whatsappd.sandbox.protocol.violations import ProtocolViolation
from whatsappd.sandbox.state.accounts import Device, NewDevice, SignedPreKey
from whatsappd.sandbox.state.switchboard import now

if TYPE_CHECKING:
    from whatsappd.sandbox.server.connection import Connection
    from whatsappd.sandbox.state.switchboard import Switchboard

# ClientPayload
_USERNAME, _PASSIVE, _PUSH_NAME, _DEVICE, _REGISTRATION_DATA = 1, 3, 7, 18, 19
# DevicePairingRegistrationData
_REGISTRATION, _IDENTITY, _SIGNED_ID, _SIGNED_KEY, _SIGNATURE = 1, 3, 4, 5, 6

#: The device is not (or no longer) linked.
LOGGED_OUT = 401


def begin(board: Switchboard, connection: Connection, client_static: bytes, payload: bytes) -> None:
    """Answer a handshake's payload.

    Raises:
        ProtocolViolation: it is no login and no registration.
    """
    fields = protobuf.decode(payload)
    if _USERNAME in fields:
        _log_in(board, connection, client_static, fields)
    elif _REGISTRATION_DATA in fields:
        offer(board, connection, _new_device(client_static, fields.message(_REGISTRATION_DATA)))
    else:
        raise ProtocolViolation("the payload is neither a login nor a registration")


def _new_device(client_static: bytes, data: protobuf.Fields) -> NewDevice:
    device = NewDevice(
        client_static,
        data.data(_REGISTRATION),
        data.data(_IDENTITY),
        SignedPreKey(data.data(_SIGNED_ID), data.data(_SIGNED_KEY), data.data(_SIGNATURE)),
    )
    if len(device.registration) != 4 or len(device.identity) != 32:
        raise ProtocolViolation("the registration lacks its keys")
    return device


def _log_in(
    board: Switchboard, connection: Connection, client_static: bytes, fields: protobuf.Fields
) -> None:
    jid = Jid(str(fields.number(_USERNAME)), USER_SERVER, fields.number(_DEVICE))
    fault = board.faults.take("fail_login", jid.user)
    device = board.registry.device(jid)
    if fault is not None:
        fail(board, connection, fault)
    elif device is None or device.noise_key != client_static:
        fail(board, connection, {"reason": str(LOGGED_OUT)})
    else:
        _welcome(board, connection, device, fields)


def fail(board: Switchboard, connection: Connection, attrs: Attrs) -> None:
    """Refuse a login with `<failure>`."""
    board.statistics.login_failures += 1
    connection.end_stream(Node("failure", {"location": "sandbox", **attrs}))


def _welcome(
    board: Switchboard, connection: Connection, device: Device, fields: protobuf.Fields
) -> None:
    older = device.connection
    if older is not None:
        # The real server lets the newest of one device's connections live.
        older.end_stream(replaced())
    connection.device = device
    device.connection = connection
    device.refused.clear()
    board.statistics.logins += 1
    if push_name := fields.text(_PUSH_NAME):
        board.registry.register(device.account.phone, push_name)
    attrs: Attrs = {"t": now(), "lid": device.lid, "location": "sandbox", "props": "0"}
    board.send(connection, Node("success", attrs))
    if not fields.number(_PASSIVE):
        board.activate(connection)


def replaced() -> Node:
    """The end of a stream whose device logged in elsewhere."""
    return Node("stream:error", {}, [Node("conflict", {"type": "replaced"})])


def device_removed() -> Node:
    """The end of a stream whose device was unlinked."""
    attrs: Attrs = {"code": str(LOGGED_OUT)}
    return Node("stream:error", attrs, [Node("conflict", {"type": "device_removed"})])
