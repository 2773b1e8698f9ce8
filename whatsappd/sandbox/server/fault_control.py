"""Faults by name: what `sandbox.fault {kind, …}` can do.

Each public method of `FaultControl` is a kind of fault. `phone` says whose clients it strikes;
None: everybody's. Faults of connections strike at once and return how many they hit (for None also
those of clients that wait to be linked). The others are armed, and strike when their moment comes.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any, get_args, get_type_hints

from whatsappd.errors import InvalidParams
from whatsappd.sandbox.phones.pairing import RESTART_REQUIRED
from whatsappd.sandbox.phones.qr_code import normalise_phone
from whatsappd.sandbox.protocol.node import Attrs, Node
from whatsappd.sandbox.server.login import replaced
from whatsappd.sandbox.server.operation_results import FaultHit
from whatsappd.sandbox.state.clients import CLOSING_DEADLINE, LAST_WORDS_GRACE, ConnectedClient
from whatsappd.sandbox.state.switchboard import Switchboard

#: Ways to refuse a dial: close the connection at once, or answer the HTTP request with 503.
REFUSALS = ("close", "503")


class FaultControl:
    """Provokes what WhatsApp, and networks, do now and then."""

    def __init__(self, board: Switchboard) -> None:
        self._board = board

    # --- connections, at once -----------------------------------------------------------------

    def drop(self, phone: str | None = None) -> int:
        """Close the TCP connections, without a word."""
        return self._each(phone, lambda client: client.wire.drop())

    def freeze(self, phone: str | None = None, *, seconds: float, cut: bool = True) -> int:
        """Neither read nor write for `seconds`, then close (as a dying mobile link), or go on."""
        return self._each(phone, lambda client: client.wire.freeze(seconds, cut=cut))

    def stream_error(
        self, phone: str | None = None, *, code: int | None = None, conflict: str | None = None
    ) -> int:
        """End the streams with `<stream:error code>`, with `<conflict type>` in it if given.

        503: the server restarts; 515: log in again; 401 with `device_removed`: unlinked;
        conflict `replaced`: another client took over.
        """
        attrs: Attrs = {} if code is None else {"code": str(code)}
        content = None if conflict is None else [Node("conflict", {"type": conflict})]
        # After 515 the client closes by itself.
        grace = CLOSING_DEADLINE if str(code) == RESTART_REQUIRED else LAST_WORDS_GRACE
        return self._end(phone, Node("stream:error", attrs, content), grace)

    def replace_stream(self, phone: str | None = None) -> int:
        """End the streams as if another client had logged in as the same device."""
        return self._end(phone, replaced())

    def empty_frame(self, phone: str | None = None) -> int:
        """Send a frame with nothing in it: whatsmeow (binary/unpack.go) reads its first byte, and
        the process ends with a Go panic."""

        def send(client: ConnectedClient) -> None:
            client.wire.enqueue(b"")
            client.wire.flush()

        return self._each(phone, send)

    # --- armed, for what comes ----------------------------------------------------------------

    def refuse_dials(
        self, *, count: int | None = None, seconds: float | None = None, mode: str = "close"
    ) -> None:
        """Refuse new connections (of everybody) `count` times, or for `seconds`."""
        if mode not in REFUSALS:
            raise InvalidParams(f"mode: must be one of {', '.join(REFUSALS)}", field="mode")
        self._board.faults.arm(
            "refuse_dials", None, count=_times(count, seconds), seconds=seconds, mode=mode
        )

    def fail_login(
        self,
        phone: str | None = None,
        *,
        reason: int,
        count: int | None = 1,
        code: int | None = None,
        expire: int | None = None,
        message: str | None = None,
    ) -> None:
        """Answer logins with `<failure reason>`.

        401: logged out; 402: banned, with `code` (why) and `expire` (seconds); 403: locked;
        405: client too old; 409, 500, 503 and any other number.
        """
        attrs: dict[str, Any] = {"reason": str(reason)}
        for name, value in (("code", code), ("expire", expire), ("message", message)):
            if value is not None:
                attrs[name] = str(value)
        self._board.faults.arm("fail_login", _phone(phone), count=count, **attrs)

    def refuse_pairing(self, *, reason: int = 503, count: int | None = 1) -> None:
        """Answer clients that come to be paired with `<failure reason>`."""
        self._board.faults.arm("refuse_pairing", None, count=count, reason=str(reason))

    def ask_passkey(self, phone: str | None = None, *, count: int | None = 1) -> None:
        """Ask for a passkey when a phone scans a code, instead of linking the device."""
        self._board.faults.arm("ask_passkey", _phone(phone), count=count)

    def nack_sends(
        self, phone: str | None = None, *, error: int = 463, count: int | None = 1
    ) -> None:
        """Refuse a phone's messages: `<ack error>`, and nothing is delivered."""
        self._board.faults.arm("nack_sends", _phone(phone), count=count, error=str(error))

    def lose_acks(self, phone: str | None = None, *, count: int | None = 1) -> None:
        """Take and deliver a phone's messages, but never acknowledge them."""
        self._board.faults.arm("lose_acks", _phone(phone), count=count)

    def delay_acks(
        self, phone: str | None = None, *, seconds: float, count: int | None = 1
    ) -> None:
        """Acknowledge a phone's messages `seconds` late."""
        # `seconds` is the delay of each, not how long the fault is armed.
        self._board.faults.arm("delay_acks", _phone(phone), count=count, delay=seconds)

    def garble(self, phone: str | None = None, *, count: int | None = 1) -> None:
        """Damage messages to a phone's devices: they cannot read them, and ask for them again.

        `count` counts a message once for each device.
        """
        self._board.faults.arm("garble", _phone(phone), count=count)

    def end_logouts(self, phone: str | None = None, *, count: int | None = 1) -> None:
        """When a device unlinks itself, end its stream as if its phone had unlinked it."""
        self._board.faults.arm("end_logouts", _phone(phone), count=count)

    def latency(self, *, seconds: float) -> None:
        """From now on, everything takes so long to all clients. `clear` does not end it."""
        self._board.latency_s = seconds

    def mute_pings(self, phone: str | None = None, *, seconds: float) -> None:
        """Do not answer keep-alive pings for a while."""
        self._board.faults.arm("mute_pings", _phone(phone), seconds=seconds)

    def clear(self) -> None:
        """Disarm everything that is still armed."""
        self._board.faults.clear()

    # --- how ----------------------------------------------------------------------------------

    def _each(self, phone: str | None, action: Callable[[ConnectedClient], None]) -> int:
        clients = self._board.online(_phone(phone))
        if phone is None:
            offers = self._board.offers
            clients += [each for each in self._board.clients if offers.of(each) is not None]
        for client in clients:
            action(client)
        return len(clients)

    def _end(self, phone: str | None, last: Node, grace: float = LAST_WORDS_GRACE) -> int:
        board = self._board
        hit = self._each(phone, lambda client: board.end_stream(client, last, grace=grace))
        board.flush()
        return hit


def _phone(phone: str | None) -> str | None:
    return None if phone is None else normalise_phone(phone)


def _times(count: int | None, seconds: float | None) -> int | None:
    return 1 if count is None and seconds is None else count


#: The kinds of faults: the public methods' names.
KINDS = tuple(
    name
    for name, method in vars(FaultControl).items()
    if callable(method) and not name.startswith("_")
)


def apply_fault(control: FaultControl, kind: str, arguments: dict[str, Any]) -> FaultHit:
    """Call the fault `kind` with named arguments. Returns `{"hit": n}` if it strikes connections.

    Raises:
        InvalidParams: there is no such kind or argument, or a value has the wrong type.
    """
    if kind not in KINDS:
        raise InvalidParams(
            f"kind: there is no fault {kind!r:.80}; there are {', '.join(KINDS)}", field="kind"
        )
    method = getattr(control, kind)
    parameters = inspect.signature(method).parameters
    hints = get_type_hints(method)
    for name, value in arguments.items():
        if name not in parameters:
            known = ", ".join(parameters) or "none"
            raise InvalidParams(f"{name}: {kind} has no such argument; it has {known}", field=name)
        if not _fits(value, hints[name]):
            raise InvalidParams(
                f"{name}: {value!r:.80} is no {_type_name(hints[name])}", field=name
            )
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in arguments:
            raise InvalidParams(f"{name}: {kind} needs this argument", field=name)
    hit = method(**arguments)
    return {} if hit is None else {"hit": hit}


def _fits(value: Any, hint: Any) -> bool:
    choices = get_args(hint) or (hint,)
    if isinstance(value, bool):
        return bool in choices
    if isinstance(value, int | float) and not 0 <= value < math.inf:  # false for NaN, too
        return False
    return isinstance(value, choices) or (isinstance(value, int) and float in choices)


def _type_name(hint: Any) -> str:
    names = {str: "text", int: "whole number from 0", float: "number from 0", bool: "boolean"}
    choices = [choice for choice in get_args(hint) or (hint,) if choice is not type(None)]
    return " or ".join(names[choice] for choice in choices)
