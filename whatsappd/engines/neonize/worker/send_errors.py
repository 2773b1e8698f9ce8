"""Classifies whatsmeow's send errors: permanent, passing, or of unknown fate.

The worker calls it with the text of the error that neonize raised.

neonize passes only Go's error text, so texts are matched: whatsmeow `send.go`, `errors.go`,
`request.go` and `socket/`. The one question that decides is whether the message's frame can have
reached the server:

- Everything that fails while the message is still being prepared (device list, LID, group members,
  encryption) is wrapped in a text of its own and never touched the socket: nothing was sent.
- "failed to send message node: ..." comes from the write to the socket. Only "websocket not
  connected", "frame socket is closed" and "frame too large" are found before the first byte is
  written. Any other error may follow a complete write, because the WebSocket library checks for
  closing once more after it.
- Bare texts come from waiting for the ack, after the frame was written. "websocket not connected"
  without a prefix is one of them: it is whatsmeow's own resend that found no socket, and the first
  frame had gone out.
- "server returned error N" is the server's answer: it did not take the message.

What is not recognised has an unknown fate: asking a person is better than sending twice or
claiming a failure.
"""

from __future__ import annotations

import re

from whatsappd.engines.protocol import SendFate, SendRefusal

#: The server's number for "you wrote to too many strangers": the reach-out timelock.
REACHOUT_TIMELOCK = 463


# The ack's error numbers (whatsmeow `receipt.go`, Baileys `decode-wa-message.ts`; those below 400
# or unlisted follow the rule in `_server_error`).
_SERVER_ERRORS = {
    400: (SendFate.PERMANENT, "WhatsApp calls the message malformed"),
    401: (SendFate.PASSING, "WhatsApp does not accept this session just now"),
    403: (SendFate.PERMANENT, "WhatsApp forbids writing to this chat"),
    404: (SendFate.PERMANENT, "the recipient does not exist on WhatsApp"),
    405: (SendFate.PERMANENT, "WhatsApp does not allow this message in this chat"),
    406: (SendFate.PERMANENT, "WhatsApp does not accept this message"),
    410: (SendFate.PERMANENT, "the chat is gone"),
    413: (SendFate.PERMANENT, "the message is too large for WhatsApp"),
    REACHOUT_TIMELOCK: (
        SendFate.RESTRICTED,
        "WhatsApp restricts writing to people this account does not know",
    ),
    479: (
        SendFate.PASSING,
        "WhatsApp rejected the message's addressing; the device list may be stale",
    ),
    487: (SendFate.PERMANENT, "WhatsApp cannot parse the message"),
    488: (SendFate.PERMANENT, "WhatsApp does not know the message's form"),
    489: (SendFate.PERMANENT, "WhatsApp does not know the message's form"),
    490: (SendFate.PERMANENT, "WhatsApp does not know the message's form"),
    491: (SendFate.PERMANENT, "WhatsApp calls the message's content invalid"),
    495: (SendFate.PERMANENT, "WhatsApp misses the message's secret"),
    550: (SendFate.PERMANENT, "WhatsApp does not support this in the group"),
    551: (SendFate.PERMANENT, "WhatsApp does not support this in the group"),
}

_SERVER_ERROR = re.compile(r"server returned error (\d{1,5})\Z")
_INFO_QUERY = re.compile(r"info query returned status (\d{3})")

# Texts as whatsmeow begins them, before anything was written to the socket.
_PERMANENT = (
    # The worker's own words: it asks before whatsmeow would send to nobody.
    (re.compile(r"the recipient has no device"), "nobody has this address"),
    (re.compile(r"no LID found for .* from server"), "the number is not on WhatsApp"),
    (re.compile(r"can't send message to unknown server"), "this kind of address takes no messages"),
    (
        re.compile(r"message recipient must be a user JID with no device part"),
        "the recipient must be a user, not one of their devices",
    ),
    (
        re.compile(r"sending to non-status broadcast lists is not yet supported"),
        "broadcast lists are not supported",
    ),
    (re.compile(r"invalid inline bot ID"), "this address is no bot"),
    (
        re.compile(r"(failed to send message node: )?failed to marshal (message|node)"),
        "the message cannot be encoded",
    ),
    (
        re.compile(r"failed to send message node: frame too large"),
        "the message is too large for WhatsApp",
    ),
)

# Group answers that will not change by themselves (whatsmeow wraps them as plain words).
_GROUP_PERMANENT = (
    (re.compile(r"you're not participating in that group"), "this account is not in the group"),
    (re.compile(r"that group does not exist"), "the group does not exist"),
)

_PASSING = (
    re.compile(r"failed to get (device list|group members|LID for PN|user info for|broadcast)"),
    re.compile(r"failed to (fetch LID mappings|prefetch sessions|encrypt|create sender key)"),
    re.compile(r"failed to (marshal sender key|send usync query|add message to retry store)"),
    re.compile(r"failed to clear old messages from retry store"),
    re.compile(r"failed to send message node: (websocket not connected|frame socket is closed)"),
    re.compile(r"the store doesn't contain a device JID"),
)


def classify(error: str) -> SendRefusal:
    """What `error`, the text of a failed `send_message`, means for the message."""
    text = error.strip()
    if match := _SERVER_ERROR.match(text):
        return _server_error(int(match[1]))
    for pattern, reason in _PERMANENT:
        if pattern.match(text):
            return SendRefusal(SendFate.PERMANENT, f"{reason} ({text})")
    for pattern in _PASSING:
        if pattern.match(text):
            return _prepared_only(text)
    return SendRefusal(SendFate.UNKNOWN, fate_unknown(text))


def fate_unknown(text: str) -> str:
    """The reason, for people, of an attempt of unknown fate that ended with `text`."""
    return f"nobody knows whether it was sent ({text})"


def _server_error(code: int) -> SendRefusal:
    fate, reason = _SERVER_ERRORS.get(code, (SendFate.PASSING, "WhatsApp did not take the message"))
    return SendRefusal(fate, f"{reason} (error {code})", code)


def _prepared_only(text: str) -> SendRefusal:
    """Nothing was sent; but some answers to the preparing queries are final."""
    for pattern, reason in _GROUP_PERMANENT:
        if pattern.search(text):
            return SendRefusal(SendFate.PERMANENT, f"{reason} ({text})")
    code = None
    if match := _INFO_QUERY.search(text):
        code = int(match[1])
    if code == REACHOUT_TIMELOCK:
        return SendRefusal(SendFate.RESTRICTED, f"not sent: {text}", code)
    return SendRefusal(SendFate.PASSING, f"not sent: {text}", code)
