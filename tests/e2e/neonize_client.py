"""A real neonize client in a process of its own, for the sandbox's protocol tests.

Usage: python neonize_client.py DATABASE PORT NOISE_ROOT_HEX|- . SSL_CERT_FILE and NEONIZE_BOT_TAG
come from the environment. Events go to stdout as JSON lines (others may print there, too, hence
the mark), commands come from stdin as JSON lines.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import threading
from typing import Any

MARK = "@event "
_lock = threading.Lock()


def emit(event: str, **data: Any) -> None:
    line = MARK + json.dumps({"event": event, **data}) + "\n"
    with _lock:
        os.write(1, line.encode())


def address(jid: Any) -> str:
    device = f":{jid.Device}" if jid.Device else ""
    return f"{jid.User}{device}@{jid.Server}" if jid.Server else ""


def main() -> None:
    database, port, root = sys.argv[1:]
    from neonize import events
    from neonize._binder import ProxySettings, gocode
    from neonize.client import NewClient
    from neonize.proto.Neonize_pb2 import JID

    if root != "-":
        from whatsappd.sandbox.neonize_library.noise_root import replace_noise_root

        assert isinstance(gocode, ctypes.CDLL)
        replace_noise_root(gocode, bytes.fromhex(root))

    client = NewClient(database)
    client.event.qr(lambda _, qr: emit("qr", qr=qr.decode()))
    plain = {
        "connected": events.ConnectedEv,
        "disconnected": events.DisconnectedEv,
        "logged_out": events.LoggedOutEv,
        "stream_replaced": events.StreamReplacedEv,
        "client_outdated": events.ClientOutdatedEv,
        "keepalive_timeout": events.KeepAliveTimeoutEv,
        "undecryptable": events.UndecryptableMessageEv,
        "joined_group": events.JoinedGroupEv,
    }
    for name, kind in plain.items():
        client.event(kind)(lambda _, event, name=name: emit(name))

    @client.event(events.PairStatusEv)
    def on_pair(_: Any, event: Any) -> None:
        emit("paired", jid=address(event.ID), error=event.Error)

    @client.event(events.TemporaryBanEv)
    def on_ban(_: Any, event: Any) -> None:
        emit("temporary_ban", code=event.Code, expire=event.Expire)

    @client.event(events.ConnectFailureEv)
    def on_failure(_: Any, event: Any) -> None:
        emit("connect_failure", reason=event.Reason, message=event.Message)

    @client.event(events.StreamErrorEv)
    def on_stream_error(_: Any, event: Any) -> None:
        emit("stream_error", code=event.Code)

    @client.event(events.OfflineSyncCompletedEv)
    def on_offline(_: Any, event: Any) -> None:
        emit("offline_done", count=event.Count)

    @client.event(events.MessageEv)
    def on_message(_: Any, event: Any) -> None:
        source = event.Info.MessageSource
        text = event.Message.conversation or event.Message.extendedTextMessage.text
        emit(
            "message",
            id=event.Info.ID,
            text=text,
            chat=address(source.Chat),
            sender=address(source.Sender),
            sender_alt=address(source.SenderAlt),
            from_me=source.IsFromMe,
            name=event.Info.Pushname,
        )

    @client.event(events.ReceiptEv)
    def on_receipt(_: Any, event: Any) -> None:
        emit("receipt", ids=list(event.MessageIDs), type=event.Type)

    def jid(text: str) -> Any:
        user, _, server = text.partition("@")
        return JID(User=user, Server=server, RawAgent=0, Device=0, Integrator=0)

    def handle(command: dict[str, Any]) -> Any:
        name = command["do"]
        if name == "send":
            sent = client.send_message(jid(command["to"]), command["text"])
            return {"id": sent.ID, "time": sent.Timestamp}
        if name == "receipts":
            client.set_force_activate_delivery_receipts(True)
            return {}
        if name == "on_whatsapp":
            return {
                "in": {
                    entry.Query: entry.IsIn for entry in client.is_on_whatsapp(*command["phones"])
                }
            }
        if name == "create_group":
            members = [jid(member) for member in command["members"]]
            return {"jid": address(client.create_group(command["name"], members).JID)}
        if name == "logout":
            client.logout()
            return {}
        if name == "stop":
            client.stop()
            os._exit(0)
        raise AssertionError(name)

    def serve_command(command: dict[str, Any]) -> None:
        try:
            emit("done", n=command["n"], **handle(command))
        except Exception as error:
            emit("failed", n=command["n"], error=f"{type(error).__name__}: {error}")

    def read_commands() -> None:
        for line in sys.stdin:
            threading.Thread(target=serve_command, args=(json.loads(line),), daemon=True).start()
        os._exit(0)

    threading.Thread(target=read_commands, daemon=True).start()
    emit("ready")
    try:
        client.connect(ProxySettings(f"socks5://127.0.0.1:{port}"))
    except Exception as error:
        emit("connect_failed", error=str(error))
    else:
        emit("returned")
    threading.Event().wait()


if __name__ == "__main__":
    main()
