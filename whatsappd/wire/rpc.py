"""MessagePack-RPC messages (the published spec, as Neovim speaks it).

    request       [0, msgid, method, params]
    response      [1, msgid, error, result]
    notification  [2, method, params]

`params` is an array that holds one map of named arguments, or nothing. `error` is nil or
`{code, name, message, data}`.

A program that calls in the name of others (the gateway) adds a second map, `{"actor": NAME}`. The
daemon accepts it from peers that it trusts only; the name goes into the audit trail.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from whatsappd.errors import InvalidParams, Malformed, WhatsappdError
from whatsappd.wire.frames import pack

REQUEST = 0
RESPONSE = 1
NOTIFICATION = 2

#: The method of the notification that tells of an error which belongs to no request. Its
#: arguments are the error's wire form.
ERROR = "error"

#: msgid is a 32-bit unsigned integer in the spec.
MAX_MSGID = 0xFFFF_FFFF

#: The longest name of an actor, in characters.
MAX_ACTOR = 100


class Request(NamedTuple):
    msgid: int
    method: str
    params: Any


class Response(NamedTuple):
    msgid: int
    error: Any
    result: Any


class Notification(NamedTuple):
    method: str
    params: Any


Message = Request | Response | Notification


def parse_message(value: Any) -> Message:
    """The RPC message that a MessagePack value is.

    Raises:
        Malformed: it is none; the message says which member is wrong.
    """
    if not _begins_with_type(value):
        raise Malformed(_what_is_wrong(value))
    _accept_raw_method(value)
    match value:
        case [0, int(msgid), str(method), list(params)] if _is_msgid(msgid):
            return Request(msgid, method, params)
        case [1, int(msgid), error, result] if _is_msgid(msgid):
            return Response(msgid, error, result)
        case [2, str(method), list(params)]:
            return Notification(method, params)
    raise Malformed(_what_is_wrong(value))


def _accept_raw_method(value: list[Any]) -> None:
    """Clients of MessagePack's old specification send strings as what is now the bin type."""
    place = 1 if value[0] == NOTIFICATION else 2
    if len(value) > place and isinstance(value[place], bytes):
        try:
            value[place] = value[place].decode()
        except UnicodeDecodeError as error:
            raise Malformed("the method's name is not UTF-8") from error


def _begins_with_type(value: Any) -> bool:
    # `False == 0` in Python, but a boolean is no message type.
    return isinstance(value, list) and bool(value) and type(value[0]) is int


def _is_msgid(value: int) -> bool:
    return not isinstance(value, bool) and 0 <= value <= MAX_MSGID


def _what_is_wrong(value: Any) -> str:
    if not isinstance(value, list):
        return f"a message must be an array, not {type(value).__name__}"
    if not _begins_with_type(value) or value[0] not in (REQUEST, RESPONSE, NOTIFICATION):
        return "a message must begin with its type: 0 (request), 1 (response) or 2 (notification)"
    length = 3 if value[0] == NOTIFICATION else 4
    if len(value) != length:
        return f"a message of type {value[0]} has {length} members, not {len(value)}"
    if value[0] != NOTIFICATION and not (isinstance(value[1], int) and _is_msgid(value[1])):
        return f"msgid must be an integer from 0 to {MAX_MSGID}"
    method = value[1] if value[0] == NOTIFICATION else value[2]
    if not isinstance(method, str):
        return "the method must be a string"
    return "params must be an array with one map of named arguments, or empty"


def named_arguments(params: Any) -> dict[str, Any]:
    """The named arguments of a request.

    Raises:
        InvalidParams: params are positional, or their names are not strings.
    """
    if params == []:
        return {}
    if isinstance(params, list) and len(params) == 1 and isinstance(params[0], dict):
        arguments = params[0]
        if all(isinstance(name, str) for name in arguments):
            return arguments
    raise InvalidParams(
        "params: must be an array that holds one map of named arguments, or nothing",
        field="params",
    )


def pack_last_word(error: WhatsappdError) -> bytes:
    """The notification that tells a peer why its connection ends; see `is_last_word`."""
    told = error.as_wire()
    data = {name: value for name, value in told["data"].items() if name != "method"}
    return pack_notification(ERROR, {**told, "data": data})


def is_last_word(error: dict[str, Any]) -> bool:
    """Whether an `error` notification is about the connection, which the daemon closes behind it.

    One about a notification of ours names its method.
    """
    data = error.get("data")
    return not isinstance(data, dict) or "method" not in data


def actor_named(params: list[Any]) -> str:
    """In whose name a request with two members in `params` is made.

    Raises:
        InvalidParams: the second member is not `{"actor": NAME}`.
    """
    match params:
        case [dict(), {"actor": str(actor), **others}] if not others:
            if 0 < len(actor) <= MAX_ACTOR and actor.isprintable():
                return actor
    raise InvalidParams(
        'params: behind the map of named arguments only {"actor": NAME} may stand, with a name of '
        f"1 to {MAX_ACTOR} printable characters",
        field="params",
    )


def pack_request(
    msgid: int, method: str, arguments: dict[str, Any] | None = None, *, actor: str | None = None
) -> bytes:
    """A request; `actor`: in whose name (see the module's docstring).

    Raises:
        InvalidParams: an argument holds something that MessagePack has no form for.
    """
    params = [arguments] if arguments else []
    if actor is not None:
        params = [arguments or {}, {"actor": actor}]
    try:
        return pack([REQUEST, msgid, method, params])
    except Malformed:
        for name, value in (arguments or {}).items():
            _check_packs(name, value)
        raise


def _check_packs(name: str, value: Any) -> None:
    shown = name if name.isprintable() else ascii(name)
    try:
        pack([name, value])
    except Malformed as error:
        raise InvalidParams(f"{shown}: {error.message}", field=shown) from error


def pack_result(msgid: int, result: Any) -> bytes:
    return pack([RESPONSE, msgid, None, result])


def pack_error(msgid: int, error: WhatsappdError) -> bytes:
    return pack([RESPONSE, msgid, error.as_wire(), None])


def pack_notification(method: str, arguments: dict[str, Any]) -> bytes:
    return pack([NOTIFICATION, method, [arguments]])
