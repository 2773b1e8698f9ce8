"""The one typed façade over neonize's client: a linked account, or one about to be linked.

Called by `engines.neonize.worker.main`, never by the daemon. neonize's calls block, some for over a
minute, and some for ever (an account that was never paired cannot be stopped):
`engines.neonize.worker.main` makes each from a thread that may be lost, and the daemon kills the
process if it has to.
"""

from __future__ import annotations

import ctypes
import importlib
import logging
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from whatsappd.engines.neonize.worker import decode_events
from whatsappd.engines.neonize.worker.connect_endings import end_of_connect, end_of_pairing
from whatsappd.engines.neonize.worker.contents import encoded, text
from whatsappd.engines.protocol import (
    INBOUND,
    KINDS,
    AccountBanned,
    AddressesFound,
    ClientConnected,
    ClientDisconnected,
    ClientHealth,
    ClientOutdated,
    DevicePaired,
    DeviceUnlinked,
    EventKind,
    KeepaliveLost,
    KeepaliveRestored,
    LoginRefused,
    MessageForgotten,
    MessageSent,
    PairingEnded,
    PairingRefused,
    QrShown,
    SessionNews,
    StreamFailed,
    StreamReplaced,
    as_map,
)
from whatsappd.model.content import Sendable
from whatsappd.model.jid import LID_SERVER, USER_SERVER, Jid, parse_jid
from whatsappd.wire.protobuf import fields

Emit = Callable[[EventKind, dict[str, Any]], None]
#: What an event of neonize's is to the daemon: news of the session, or what goes into the log (a
#: map of its kind, or several; None: nothing).
_Told = SessionNews | dict[str, Any] | Iterator[dict[str, Any]] | None

#: SQLite options ride on the path, because neonize pastes it into `file:%s?_foreign_keys=on`; the
#: trailing `x=` swallows what it adds. WAL keeps readers and the writer apart, and a busy database
#: is waited for instead of failing. whatsmeow's few statements are kept prepared, for each of its
#: connections: a message takes some thirty, and preparing them was a sixth of its processor time.
DATABASE_OPTIONS = "?_journal_mode=WAL&_busy_timeout=5000&_stmt_cache_size=64&_foreign_keys=on&x="


#: An hour: idle workers then cost the host nothing that whatsmeow does not need.
_PATIENCE_S = 3600.0

#: What whatsmeow logs before it deletes an account that WhatsApp refused (connectionevents.go).
_UNLINKED_AT_LOGIN = re.compile(r"Got (\d{3})\b.* connect failure, sending LoggedOut event")

#: What whatsmeow logs when a device asks for a message again that it does not remember (retry.go).
_FORGOTTEN = re.compile(
    r"Failed to handle retry receipt for (\S+)/\S+ from (\S+): couldn't find message (\S+)"
)

#: Seconds for which somebody who had a device is not asked about again, and how many such.
_REACHABLE_S = 600.0
_REACHABLE = 10_000

#: Seconds without an event after which neonize's queue counts as empty; an event takes some 0.1 ms.
QUIET = 0.05
#: Seconds for that at the most.
DRAIN_WITHIN = 1.0

#: Characters of an error that goes into an event.
_MAX_REASON = 200


class NeonizeClient:
    """One company's neonize client, with its database in the current directory.

    `emit` is called from foreign threads, one event after another, and may block: that is how the
    daemon's pace reaches whatsmeow.
    """

    def __init__(self, company: str, *, database: str, proxy: str | None, emit: Emit) -> None:
        self._neonize = importlib.import_module("neonize.client")
        self._proto = importlib.import_module("neonize.proto.Neonize_pb2")
        self._e2e = importlib.import_module("neonize.proto.waE2E.WAWebProtobufsE2E_pb2")
        self._exceptions = importlib.import_module("neonize.exc")
        # `connect` looks five times a second whether Ctrl-C came; here it never does.
        vars(self._neonize)["ThreadEvent"] = _PatientEvent
        self._emit = emit
        self._begun = False  # set by the first event; see `health`
        self._handled = 0  # events
        #: By neonize's number: the kind of an event, its protobuf type, and what makes ours of it.
        self._decoders: dict[int, tuple[EventKind, Any, Callable[[Any], _Told]]] = {}
        self._drained = False
        self._proxy = self._neonize.ProxySettings(proxy) if proxy else None
        props = self._neonize.DeviceProps(
            os="whatsappd", platformType=self._neonize.DeviceProps.CHROME
        )
        self._client = self._neonize.NewClient(
            database + DATABASE_OPTIONS, uuid=company, props=props
        )
        self._reachable: dict[Jid, float] = {}
        self._own_users: frozenset[str] = frozenset()  # of both our identities
        self._trouble = _LogListener(self._unlinked_at_login, self._forgotten)
        logging.getLogger("whatsmeow.Client").addHandler(self._trouble)
        self._subscribe()

    def connect(self) -> None:
        """Connect, and stay so until stopped; then tell of the end. Blocks: run it in a thread of
        its own."""
        error: str | None = None
        try:
            self._client.connect(self._proxy)
        except self._exceptions.NeonizeError as failure:
            error = str(failure)
            # It hands on nothing more, but its socket would take and acknowledge what comes.
            if self._begun:
                threading.Thread(target=self._client.disconnect, daemon=True).start()
        self._emit_news(end_of_connect(error))

    def stop(self) -> None:
        """Disconnect; `connect` then returns, unless the account was never paired."""
        if self._begun:
            self._client.stop()

    def drain(self) -> None:
        """Disconnect, and wait until whatsmeow has handed on what it acknowledged to WhatsApp.

        Up to 100 events wait in neonize's own queue. Nothing tells when it is empty, but it is
        when no event came for a while.
        """
        if not self._begun or self._drained:
            return
        self._drained = True
        disconnecting = threading.Thread(target=self._client.disconnect, daemon=True)
        disconnecting.start()
        deadline = time.monotonic() + DRAIN_WITHIN
        handled = None
        while time.monotonic() < deadline and (
            disconnecting.is_alive() or handled != self._handled
        ):
            handled = self._handled
            time.sleep(QUIET)

    def logout(self) -> None:
        """Unlink this device at WhatsApp.

        Raises:
            SendError: WhatsApp was not told.
        """
        self._checked(self._client.logout)

    def health(self) -> ClientHealth:
        """Whether the socket is up, and whether WhatsApp accepted the login on it."""
        # neonize registers the client in a Go map without a lock: asking for it before the first
        # event proves it registered could be the concurrent access that ends the process.
        if not self._begun:
            return ClientHealth(connected=False, logged_in=False)
        return ClientHealth(bool(self._client.is_connected), bool(self._client.is_logged_in))

    def send(self, to: Jid, content: Sendable, *, secret: bytes) -> MessageSent:
        """Send a message and wait for the server's ack (at most 75 s).

        `secret` (32 bytes) identifies the attempt in the account's database; see `send_evidence`.

        Raises:
            SendError: whatsmeow's own words for what went wrong.
        """
        jid = self._jid(to)
        if to.server in (USER_SERVER, LID_SERVER):
            self._require_device(to)
        message = encoded(content, self._e2e)
        message.messageContextInfo.messageSecret = secret
        answer = self._checked(lambda: self._client.send_message(jid, message))
        return MessageSent(answer.ID, answer.Timestamp * 1000)

    def look_up(self, addresses: list[Jid]) -> AddressesFound:
        """Which accounts phone numbers and LIDs have (usync `contact`, `devices`).

        Answers `accounts`: the account's JID for each address that has one, a phone number where it
        is known, and perhaps another one than was asked for (Brazil's ninth digit). And `lids`, for
        each whose LID is known.

        Raises:
            SendError: WhatsApp did not say.
        """
        accounts: dict[str, str] = {}
        lids: dict[str, str] = {}
        phones = {jid.user: str(jid) for jid in addresses if jid.server == USER_SERVER}
        answers: list[Any] = self._checked(
            lambda: self._client.is_on_whatsapp(*(f"+{phone}" for phone in phones))
        )
        for answer in answers:
            address = phones.get(answer.Query.removeprefix("+"))
            found = _as_jid(answer.JID)
            if address is None or not answer.IsIn or found is None:
                continue
            if found.server == LID_SERVER:
                lids[address] = str(found)
                # whatsmeow has just stored the number that came with it.
                found = self._number_of(found) or parse_jid(address)
            accounts[address] = str(found)
        for jid in addresses:
            if jid.server == LID_SERVER and self._devices(jid):
                lids[str(jid)] = str(jid)
                accounts[str(jid)] = str(self._number_of(jid) or jid)
        return AddressesFound(accounts, lids)

    def _require_device(self, to: Jid) -> None:
        """Raises SendError if nobody would get a message: the address has no device at all.

        whatsmeow sends it to nobody then, and the server acknowledges it. It remembers the devices
        that are asked for here, and does not ask again when it sends.
        """
        now = time.monotonic()
        if now - self._reachable.get(to, -_REACHABLE_S) < _REACHABLE_S:
            return
        try:
            has_device = self._has_device(to)
        except WhatsmeowError as error:
            # In whatsmeow's words for "not sent yet"; others of its texts leave that open.
            raise WhatsmeowError(f"failed to get device list: {error}") from error
        if not has_device:
            raise WhatsmeowError(NO_DEVICE)
        if len(self._reachable) >= _REACHABLE:
            self._reachable.clear()
        self._reachable[to] = now

    def _has_device(self, to: Jid) -> bool:
        lid: Jid | None = to
        if to.server == USER_SERVER:
            lid = self._lid_of(to)
            if lid is None:
                # The answer brings the LID along, which whatsmeow stores.
                self._checked(lambda: self._client.get_user_info(self._jid(to)))
                lid = self._lid_of(to)
        return lid is not None and bool(self._devices(lid))

    def _devices(self, jid: Jid) -> list[Any]:
        return list(self._checked(lambda: self._client.get_user_devices(self._jid(jid))))

    def _lid_of(self, number: Jid) -> Jid | None:
        """The LID of a phone number, as far as whatsmeow knows."""
        return _as_jid(self._checked(lambda: self._client.get_lid_from_pn(self._jid(number))))

    def _number_of(self, lid: Jid) -> Jid | None:
        """The phone number of a LID, as far as whatsmeow knows."""
        return _as_jid(self._checked(lambda: self._client.get_pn_from_lid(self._jid(lid))))

    def _jid(self, jid: Jid) -> Any:
        return self._proto.JID(
            User=jid.user, Server=jid.server, Device=0, RawAgent=0, Integrator=0, IsEmpty=False
        )

    def _checked(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except self._exceptions.NeonizeError as error:
            raise WhatsmeowError(str(error)) from error

    def _subscribe(self) -> None:
        proto, client = self._proto, self._client
        client.event.qr(lambda _, code: self._tell(QrShown(_decoded(code))))
        # neonize prints the login status' address; the instance attribute takes the call instead.
        client._NewClient__onLoginStatus = self._on_login
        # It decodes events of every kind, and loses one that it cannot with a line on stderr.
        client.event.execute = self._take
        decoders: list[tuple[EventKind, Any, Callable[[Any], _Told]]] = [
            (EventKind.PAIRED, proto.PairStatus, _pair_status),
            (EventKind.CONNECTED, proto.Connected, self._connected),
            (EventKind.DISCONNECTED, proto.Disconnected, lambda _: ClientDisconnected()),
            (
                EventKind.KEEPALIVE_TIMEOUT,
                proto.KeepAliveTimeout,
                decode_events.keepalive_lost,
            ),
            (EventKind.KEEPALIVE_RESTORED, proto.KeepAliveRestored, lambda _: KeepaliveRestored()),
            (EventKind.LOGGED_OUT, proto.LoggedOut, decode_events.device_unlinked),
            (EventKind.STREAM_REPLACED, proto.StreamReplaced, lambda _: StreamReplaced()),
            (EventKind.TEMPORARY_BAN, proto.TemporaryBan, decode_events.account_banned),
            (EventKind.CONNECT_FAILURE, proto.ConnectFailure, decode_events.login_refused),
            (EventKind.CLIENT_OUTDATED, proto.ClientOutdated, lambda _: ClientOutdated()),
            (
                EventKind.STREAM_ERROR,
                proto.StreamError,
                lambda event: StreamFailed(text(event.Code)),
            ),
            (EventKind.MESSAGE, proto.Message, decode_events.message),
            (EventKind.RECEIPT, proto.Receipt, decode_events.receipt),
            (EventKind.UNDECRYPTABLE, proto.UndecryptableMessage, decode_events.undecryptable),
        ]
        numbers = importlib.import_module("neonize.events").EVENT_TO_INT
        for kind, event_type, decode in decoders:
            client.event(event_type)(_nothing)  # which asks for them
            self._decoders[numbers[event_type]] = (kind, event_type, decode)

    def _take(self, _uuid: Any, address: int, size: int, number: int) -> None:
        """An event from neonize. Called by its one thread for them, which waits for the end."""
        if number not in self._decoders:
            return  # who we are, which `_connected` asks for
        kind, event_type, decode = self._decoders[number]
        packed = ctypes.string_at(address, size)
        news: SessionNews | None = None
        brought: list[dict[str, Any]] = []
        try:
            match decode(event_type.FromString(packed)):
                case None:
                    pass
                case dict() as data:
                    brought = [data]
                case Iterator() as several:
                    brought = list(several)
                case told:
                    news = told
        except Exception as error:  # noqa: BLE001 -- whatever it is, it costs this event alone
            reason = f"{type(error).__name__}: {error}"[:_MAX_REASON]
            if kind in INBOUND:
                kind, brought = EventKind.UNREADABLE, [self._saved(kind, packed, reason)]
            else:
                news = _unread_news(kind, reason)
        if news is None:
            self._bring(kind, *brought)
        else:
            self._tell(news)

    def _tell(self, news: SessionNews) -> None:
        """Emit what is about the session."""
        self._bring(KINDS[type(news)], as_map(news))

    def _emit_news(self, news: SessionNews) -> None:
        self._emit(KINDS[type(news)], as_map(news))

    def _bring(self, kind: EventKind, *all_data: dict[str, Any]) -> None:
        """Emit one of neonize's events, as none of ours, one or several."""
        # An exception that leaves a callback is only printed by ctypes, and the event is lost
        # without a trace. Here it ends the process instead, which the daemon sees and logs.
        self._begun = True
        try:
            for data in all_data:
                self._emit(kind, data)
            self._handled += 1
        except Exception:  # noqa: BLE001 -- whatever it is, the process reports it and ends
            threading.excepthook(
                threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread()))
            )

    def _saved(self, kind: EventKind, packed: bytes, reason: str) -> dict[str, Any]:
        """Who sent it and when may still be readable where what was sent is not."""
        source = message_id = None
        try:
            for number, value, _ in fields(packed):
                if number == 1 and kind is EventKind.RECEIPT:
                    source = self._proto.MessageSource.FromString(value)
                elif number == 1:
                    info = self._proto.MessageInfo.FromString(value)
                    source, message_id = info.MessageSource, info.ID
            return decode_events.unreadable(kind, reason, source, message_id, len(packed))
        except Exception:  # noqa: BLE001 -- then nothing is
            return decode_events.unreadable(kind, reason, None, None, len(packed))

    def _on_login(self, _uuid: int, status: int) -> None:
        outcome = _decoded(ctypes.string_at(status))
        end = end_of_pairing(outcome)
        if end is None:
            self._begun = True
            return
        # The log's records are handed on by a thread; the one that says why must have arrived.
        importlib.import_module("neonize.utils.log")._log_queue.join()
        self._tell(PairingEnded(end, self._trouble.last or outcome))

    def _unlinked_at_login(self, reason: int) -> None:
        """whatsmeow deletes the account at once, and neonize hands on no event without one: if it
        had not begun to, the log is all that tells. (If it had, the event comes a second time.)"""
        self._emit_news(DeviceUnlinked(on_connect=True, reason=reason))

    def _forgotten(self, chat: str, device: str, message_id: str) -> None:
        """A device could not read a message and asked for it, and whatsmeow has forgotten it.

        One of our own account's devices lacks its copy then; the recipient has the message.
        """
        try:
            known, asking = parse_jid(chat), parse_jid(device)
        except ValueError:
            return  # not as whatsmeow writes addresses; the log has the line
        if asking.user in self._own_users:
            return
        other = None
        if known.server == LID_SERVER:
            try:
                other = self._number_of(known.account)
            except WhatsmeowError:
                other = None  # the LID alone has to do
        forgotten = MessageForgotten(
            message_id=message_id, chat=str(other or known.account), sender=device
        )
        self._bring(EventKind.FORGOTTEN, as_map(forgotten))

    def _connected(self, _event: Any) -> ClientConnected:
        # Without this, receipts are "inactive" and no phone shows them.
        self._client.set_force_activate_delivery_receipts(True)
        me = self._client.get_me()
        self._own_users = frozenset(text(jid.User) for jid in (me.JID, me.LID))
        return ClientConnected(
            jid=decode_events.jid_text(me.JID),
            lid=decode_events.jid_text(me.LID),
            push_name=text(me.PushName) or None,
        )


#: Events about the session whose fields cannot be read.
_WITHOUT_FIELDS: dict[EventKind, SessionNews] = {
    EventKind.CONNECTED: ClientConnected(),
    EventKind.DISCONNECTED: ClientDisconnected(),
    EventKind.KEEPALIVE_TIMEOUT: KeepaliveLost(),
    EventKind.KEEPALIVE_RESTORED: KeepaliveRestored(),
    EventKind.LOGGED_OUT: DeviceUnlinked(),
    EventKind.STREAM_REPLACED: StreamReplaced(),
    EventKind.TEMPORARY_BAN: AccountBanned(),
    EventKind.CONNECT_FAILURE: LoginRefused(),
    EventKind.CLIENT_OUTDATED: ClientOutdated(),
    EventKind.STREAM_ERROR: StreamFailed(),
}


def _unread_news(kind: EventKind, reason: str) -> SessionNews:
    """What is told in the place of news that protobuf or we cannot read."""
    logging.getLogger(__name__).error("an event of kind %s cannot be read: %s", kind, reason)
    if kind is EventKind.PAIRED:
        return PairingRefused(f"the phone's answer cannot be read: {reason}")
    return _WITHOUT_FIELDS[kind]  # that it happened is what counts


class _PatientEvent(threading.Event):
    """An event whose waiters wake when it is set, however short a time-out they name."""

    def wait(self, timeout: float | None = None) -> bool:
        return super().wait(None if timeout is None else max(timeout, _PATIENCE_S))


class _LogListener(logging.Handler):
    """Listens to whatsmeow's log for what neonize does not hand on as events: why a pairing is
    refused (`last`, a warning), that the account was unlinked at login, and that a message which is
    asked for again was forgotten (by chat, device and id)."""

    def __init__(
        self,
        on_unlinked: Callable[[int], None],
        on_forgotten: Callable[[str, str, str], None],
    ) -> None:
        super().__init__(logging.INFO)
        self.last: str | None = None
        self._on_unlinked = on_unlinked
        self._on_forgotten = on_forgotten

    def emit(self, record: logging.LogRecord) -> None:
        line = record.getMessage()
        if record.levelno >= logging.WARNING:
            self.last = line
            if forgotten := _FORGOTTEN.match(line):
                self._on_forgotten(*forgotten.groups())
        elif unlinked := _UNLINKED_AT_LOGIN.match(line):
            self._on_unlinked(int(unlinked[1]))


#: Our own words for a recipient whom no message could reach; see `send_errors`.
NO_DEVICE = "the recipient has no device"


class WhatsmeowError(Exception):
    """whatsmeow refused or failed a call; the text is its own."""


def _as_jid(jid: Any) -> Jid | None:
    found = decode_events.jid_text(jid)
    return None if found is None else parse_jid(found)


def _nothing(*_event: Any) -> None: ...


def _pair_status(event: Any) -> DevicePaired | PairingRefused:
    if event.Status == event.ERROR:
        return PairingRefused(text(event.Error))
    return DevicePaired(
        jid=decode_events.jid_text(event.ID),
        business_name=text(event.BusinessName) or None,
        platform=text(event.Platform) or None,
    )


def _decoded(value: bytes) -> str:
    return value.decode(errors="replace")
