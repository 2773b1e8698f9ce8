"""Login: what a client says at the end of its handshake, and how the server answers.

`ClientPayload` (waWa6/WAWebProtobufsWa6.proto in whatsmeow) has a user name, then the client logs
in as a linked device; or registration data, then it wants to be linked (`phones.pairing`).

    <success t lid>                                    it is logged in
    <failure reason>                                   it is not: 401 logged out, 402 banned, …
    <stream:error><conflict type=replaced/>            another client logged in as the same device
    <stream:error code=401><conflict type=device_removed/>   the device was unlinked

A client that logs in as `passive` gets nothing that waited for it until it asks (`<active/>`, in
`iq`). A device is recognised by the static key of its handshake.
"""

from __future__ import annotations

from whatsappd.model.jid import USER_SERVER, Jid
from whatsappd.sandbox.phones.pairing import offer_pairing
from whatsappd.sandbox.protocol import protobuf
from whatsappd.sandbox.protocol.node import Attrs, Node, timestamp
from whatsappd.sandbox.protocol.noise import FinishedHandshake
from whatsappd.sandbox.protocol.violations import ProtocolViolation
from whatsappd.sandbox.state.accounts import DeviceRegistration, LinkedDevice, SignedPreKey
from whatsappd.sandbox.state.clients import ConnectedClient
from whatsappd.sandbox.state.switchboard import Switchboard

# ClientPayload
_USERNAME, _PASSIVE, _PUSH_NAME, _DEVICE, _REGISTRATION_DATA = 1, 3, 7, 18, 19
# DevicePairingRegistrationData
_REGISTRATION, _IDENTITY, _SIGNED_ID, _SIGNED_KEY, _SIGNATURE = 1, 3, 4, 5, 6

#: The reason for a device that is not, or no longer, linked.
LOGGED_OUT = 401


def handle_handshake(
    board: Switchboard, client: ConnectedClient, finished: FinishedHandshake
) -> None:
    """Log a client in, refuse it, or ask it to show QR codes.

    Raises:
        ProtocolViolation: its payload is neither a login nor a registration.
    """
    fields = protobuf.decode(finished.payload)
    if _USERNAME in fields:
        _log_in(board, client, finished.client_static, fields)
    elif _REGISTRATION_DATA in fields:
        data = fields.message(_REGISTRATION_DATA)
        offer_pairing(board, client, _registration(finished.client_static, data))
    else:
        raise ProtocolViolation("the payload is neither a login nor a registration")


def _registration(client_static: bytes, data: protobuf.ProtobufFields) -> DeviceRegistration:
    device = DeviceRegistration(
        client_static,
        data.data(_REGISTRATION),
        data.data(_IDENTITY),
        SignedPreKey(data.data(_SIGNED_ID), data.data(_SIGNED_KEY), data.data(_SIGNATURE)),
    )
    if len(device.registration) != 4 or len(device.identity) != 32:
        raise ProtocolViolation("the registration lacks its keys")
    return device


def _log_in(
    board: Switchboard,
    client: ConnectedClient,
    client_static: bytes,
    fields: protobuf.ProtobufFields,
) -> None:
    jid = Jid(str(fields.number(_USERNAME)), USER_SERVER, fields.number(_DEVICE))
    fault = board.faults.take("fail_login", jid.user)
    device = board.registry.device(jid)
    if fault is not None:
        _fail(board, client, fault)
    elif device is None or device.noise_key != client_static:
        _fail(board, client, {"reason": str(LOGGED_OUT)})
    else:
        _welcome(board, client, device, fields)


def _fail(board: Switchboard, client: ConnectedClient, attrs: Attrs) -> None:
    """Refuse a login with `<failure>` and these attributes."""
    board.statistics.login_failures += 1
    board.end_stream(client, Node("failure", {"location": "sandbox", **attrs}))


def _welcome(
    board: Switchboard,
    client: ConnectedClient,
    device: LinkedDevice,
    fields: protobuf.ProtobufFields,
) -> None:
    older = board.client_of(device)
    if older is not None:
        # The real server, too, keeps the newest of a device's connections.
        board.end_stream(older, replaced())
    board.log_in(client, device)
    board.statistics.logins += 1
    if push_name := fields.text(_PUSH_NAME):
        board.registry.register(device.account.phone, push_name)
    attrs: Attrs = {"t": timestamp(), "lid": device.lid, "location": "sandbox", "props": "0"}
    board.send(client, Node("success", attrs))
    if not fields.number(_PASSIVE):
        board.activate(client)


def replaced() -> Node:
    """The last stanza to a client whose device has logged in elsewhere."""
    return Node("stream:error", {}, [Node("conflict", {"type": "replaced"})])


def device_removed() -> Node:
    """The last stanza to a client whose device was unlinked."""
    attrs: Attrs = {"code": str(LOGGED_OUT)}
    return Node("stream:error", attrs, [Node("conflict", {"type": "device_removed"})])
