"""Send errors, in the words of whatsmeow (send.go, errors.go, request.go, socket/)."""

from __future__ import annotations

import pytest

from whatsappd.engines.neonize.worker.send_errors import REACHOUT_TIMELOCK, classify
from whatsappd.engines.protocol import SendFate

PERMANENT = [
    "no LID found for 15550100@s.whatsapp.net from server",
    "can't send message to unknown server example.org",
    "message recipient must be a user JID with no device part",
    "sending to non-status broadcast lists is not yet supported",
    "failed to marshal message: proto: invalid",
    "failed to marshal node: too large",
    "failed to send message node: failed to marshal node: too deep",
    "failed to send message node: frame too large (got 20000000 bytes, max 16777216 bytes)",
    "failed to get group members: you're not participating in that group",
    "failed to get group members: that group does not exist",
    "server returned error 404",
    "server returned error 403",
]

PASSING = [
    "the store doesn't contain a device JID",
    "failed to get device list: failed to send usync query: info query timed out",
    "failed to get device list: failed to send usync query: websocket not connected",
    "failed to get device list: failed to send usync query: "
    "websocket disconnected before info query returned response",
    "failed to get user info for 15550100@s.whatsapp.net to fill LID cache: "
    "failed to send usync query: info query returned status 429: rate-overlimit",
    "failed to get LID for PN 15550100@s.whatsapp.net: database is locked",
    "failed to get group members: info query timed out",
    "failed to fetch LID mappings: database is locked",
    "failed to prefetch sessions: database is locked",
    "failed to send message node: websocket not connected",
    "failed to send message node: frame socket is closed",
    "server returned error 429",
    "server returned error 503",
]

# The frame had been written, or may have been.
UNKNOWN = [
    "timed out waiting for message send response",
    "websocket disconnected before message send returned response",
    "websocket disconnected before message send (retry) returned response",
    # whatsmeow's own resend found no socket: the first frame had gone out
    "websocket not connected",
    "frame socket is closed",
    "info query timed out",
    # the WebSocket library looks for closing once more after a complete write
    "failed to send message node: failed to write msg: use of closed network connection",
    "failed to send message node: failed to write frame: broken pipe",
    "context canceled",
    "context deadline exceeded",
    "something that a future version says",
    "",
]


@pytest.mark.parametrize("text", PERMANENT)
def test_permanent(text: str) -> None:
    verdict = classify(text)
    assert verdict.fate is SendFate.PERMANENT
    assert verdict.reason


@pytest.mark.parametrize("text", PASSING)
def test_passing(text: str) -> None:
    assert classify(text).fate is SendFate.PASSING


@pytest.mark.parametrize("text", UNKNOWN)
def test_unknown_fate(text: str) -> None:
    assert classify(text).fate is SendFate.UNKNOWN


def test_the_servers_number_is_told() -> None:
    for text in ("failed to get device list: info query returned status 463: x",):
        restricted = classify(text)
        assert (restricted.fate, restricted.code) == (SendFate.RESTRICTED, REACHOUT_TIMELOCK)
    assert classify("server returned error 777").code == 777
    limited = classify(
        "failed to get group members: info query returned status 429: rate-overlimit"
    )
    assert limited.code == 429


def test_an_answer_of_the_server_means_that_it_was_not_sent() -> None:
    for code in range(1, 1000):
        assert classify(f"server returned error {code}").fate is not SendFate.UNKNOWN
