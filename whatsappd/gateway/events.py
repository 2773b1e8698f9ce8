"""`/v1/events`: a page of the log, server-sent events, and the WebSocket, at one path."""

from __future__ import annotations

import json
import re
from functools import partial
from typing import Annotated, Any

import trio
from msgspec import Meta

from whatsappd.api import events as api
from whatsappd.api.declaration import NoParams
from whatsappd.api.events import MAX_PAGE, EventsPage, Subscribe
from whatsappd.api.types import MAX_SEQ
from whatsappd.errors import InvalidParams, WhatsappdError
from whatsappd.gateway.answers import Receive, Send, json_text
from whatsappd.gateway.auth import READ, SUBPROTOCOL
from whatsappd.gateway.daemon_link import ANSWER_WITHIN, ask, within
from whatsappd.gateway.event_streams import (
    BAD_MESSAGE,
    CONSUMER_PATTERN,
    DAEMON_AWAY,
    GOING_AWAY,
    TOO_SLOW,
    UNAUTHENTICATED,
    Caller,
    Ended,
    EventFilter,
    StreamSender,
)
from whatsappd.gateway.problem_details import as_text
from whatsappd.gateway.requests import RoutedRequest, StreamedAnswer, from_text
from whatsappd.gateway.routing import Possible, Routes
from whatsappd.gateway.websocket import AcceptedWebSocket
from whatsappd.rpc.client import RpcClient

routes = Routes("events")

#: Of a stream of events: nginx and others pass it on at once.
_SSE_HEADERS = [
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
    (b"content-type", b"text/event-stream; charset=utf-8"),
]
#: Seconds for the closing words of a stream to leave.
CLOSE_WITHIN = 5.0

_DOC = f"""\
A page of the log behind `after`, in order. Go on with `next` as `after`, or behind the last `seq`
that you handled: neither misses an event, and a page without events is the end of the log. What the
retention deleted before you came to it, `gap` tells.

**Server-sent events**: with `Accept: text/event-stream` the same path replays and then follows.
Each event has its `seq` as `id`, its type as `event`, and itself as `data`; `Last-Event-ID` goes
before `after`; comments are heartbeats; `events.gap` tells that some events before `first_seq` are
gone; `stream.ended` says why the stream ends.

**WebSocket**: the same path again (`GET` with `Upgrade: websocket`), with the parameters `after`
(without it: only what comes), `company`, `type` (both may be repeated), and `consumer`: a name
under which the daemon remembers how far you are. The server sends JSON texts:
`{{"ready": {{"after", "last_seq", "gap"}}}}`, `{{"event": {{...}}}}`, `{{"gap": {{"first_seq"}}}}`,
`{{"heartbeat": {{"seq"}}}}` every 20 s, `{{"acked": SEQ}}`, `{{"error": PROBLEM}}`. The client
sends `{{"ack": SEQ}}` to move its consumer's cursor. Browsers, which cannot set `Authorization`
there, offer the subprotocols `{SUBPROTOCOL}` and `bearer.KEY`.

Close codes: {GOING_AWAY} the gateway stops; {BAD_MESSAGE} you sent something else than an ack;
{UNAUTHENTICATED} the key was revoked; {TOO_SLOW} you read too slowly and were dropped;
{DAEMON_AWAY} the daemon went away. Resume behind the last `seq` you handled: nothing is lost.
"""


class EventQuery(EventFilter):
    """Which page of the log, or which stream."""

    limit: Annotated[int, Meta(ge=1, le=MAX_PAGE, description="Events in one answer.")] = 100


@routes.route(
    "GET",
    "/v1/events",
    "Replay the log; follow it by SSE or WebSocket",
    scope=READ,
    query=EventQuery,
    answers={200: Possible(EventsPage, "A page, or the stream.", ("text/event-stream",))},
    about=_DOC,
)
async def read_events(asked: RoutedRequest[EventQuery, NoParams]) -> EventsPage | StreamedAnswer:
    if "text/event-stream" in asked.request.headers.get("accept", ""):
        wanted = _wanted(asked)
        return StreamedAnswer(lambda receive, send: _stream(asked, wanted, receive, send))
    query = asked.query
    return await asked.call(
        api.READ,
        api.ReadEvents(
            after=query.after or 0,
            limit=query.limit,
            companies=asked.identity.among(query.company),
            types=asked.identity.types(query.type),
        ),
    )


def _wanted(asked: RoutedRequest[Any, Any]) -> Subscribe:
    """What a stream is to have; `Last-Event-ID` goes before `after`.

    Raises:
        InvalidParams: a parameter is wrong, or there is none of that name.
        Denied: a company is not for this key.
    """
    given = dict(asked.request.query)
    last = asked.request.headers.get("last-event-id")
    if last:
        given["after"] = [last]
    query = from_text(given, EventFilter, strictly=True)
    consumer = query.consumer
    if consumer is not None:
        if re.fullmatch(CONSUMER_PATTERN, consumer) is None:
            raise InvalidParams(
                "consumer: use 1 to 48 characters of A-Z, a-z, 0-9 and '._:@-'", field="consumer"
            )
        consumer = asked.identity.consumer(consumer)
    return Subscribe(
        after=query.after,
        companies=asked.identity.among(query.company),
        types=asked.identity.types(query.type),
        consumer=consumer,
    )


def _caller(asked: RoutedRequest[Any, Any]) -> Caller:
    return Caller(asked.identity, asked.request.headers, asked.request.address)


async def _stream(
    asked: RoutedRequest[Any, Any], wanted: Subscribe, receive: Receive, send: Send
) -> None:
    """Server-sent events (WHATWG HTML, section 9.2). An error before the first one is a problem."""
    streams = asked.shared.streams

    async def write(text: str) -> None:
        await send({"type": "http.response.body", "body": text.encode(), "more_body": True})

    async def until_gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    async with streams.subscribed(asked.shared.link, asked.identity, wanted) as (client, ready):
        await send({"type": "http.response.start", "status": 200, "headers": _SSE_HEADERS})
        outlet = _SseOutlet(StreamSender(write))
        try:
            await write(": following\n\n")
            if ready.gap is not None:
                await outlet.gap(ready.gap)
            await streams.follow(_caller(asked), client, ready.after, outlet, until_gone)
        except Ended as ended:
            told = json_text({"code": ended.code, "reason": ended.reason})
            with trio.move_on_after(CLOSE_WITHIN):
                await write(f"event: stream.ended\ndata: {told}\n\n")
    await send({"type": "http.response.body", "body": b"", "more_body": False})


class _SseOutlet:
    def __init__(self, sender: StreamSender) -> None:
        self._send = sender

    async def event(self, event: dict[str, Any]) -> None:
        await self._send(
            f"id: {event['seq']}\nevent: {event['type']}\ndata: {json_text(event)}\n\n"
        )

    async def gap(self, first_seq: int) -> None:
        await self._send(f"event: events.gap\ndata: {json_text({'first_seq': first_seq})}\n\n")

    async def heartbeat(self, last_seq: int) -> None:
        await self._send(f": {last_seq}\n\n")


class _WebSocketOutlet:
    def __init__(self, sender: StreamSender) -> None:
        self._send = sender

    async def event(self, event: dict[str, Any]) -> None:
        await self._send(json_text({"event": event}))

    async def gap(self, first_seq: int) -> None:
        await self._send(json_text({"gap": {"first_seq": first_seq}}))

    async def heartbeat(self, last_seq: int) -> None:
        await self._send(json_text({"heartbeat": {"seq": last_seq}}))


@routes.websocket("/v1/events", scope=READ)
async def follow_events(asked: RoutedRequest[Any, Any], websocket: AcceptedWebSocket) -> None:
    """See `_DOC`. What is wrong before it begins, `admission` answers as HTTP, with a problem."""
    wanted, streams = _wanted(asked), asked.shared.streams
    async with streams.subscribed(asked.shared.link, asked.identity, wanted) as (client, ready):
        await websocket.accept(SUBPROTOCOL if SUBPROTOCOL in websocket.subprotocols else None)
        sender = StreamSender(websocket.send_text)
        try:
            begin = {"after": ready.after, "last_seq": ready.last_seq, "gap": ready.gap}
            await sender(json_text({"ready": begin}))
            taking = partial(
                _take_acks, websocket, client, wanted.consumer, sender, asked.identity.actor
            )
            outlet = _WebSocketOutlet(sender)
            await streams.follow(_caller(asked), client, ready.after, outlet, taking)
        except Ended as ended:
            with trio.move_on_after(CLOSE_WITHIN):
                await websocket.close(ended.code, ended.reason)


async def _take_acks(
    websocket: AcceptedWebSocket,
    client: RpcClient,
    consumer: str | None,
    sender: StreamSender,
    actor: str,
) -> None:
    """Move the consumer's cursor as the client says, until it hangs up."""
    while True:
        message = await websocket.receive()
        if message is None:
            return
        seq = _acked(message.get("text"))
        if seq is None:
            raise Ended(BAD_MESSAGE, 'send {"ack": SEQ}, nothing else')
        if consumer is None:
            raise Ended(BAD_MESSAGE, "acks are for named consumers: connect with ?consumer=NAME")
        try:
            moved = api.Acknowledge(consumer=consumer, seq=seq)
            answer = await within(ANSWER_WITHIN, ask(client, api.ACK, moved, actor=actor))
        except WhatsappdError as error:
            if error.http_status >= 500:
                raise
            await sender(json_text({"error": json.loads(as_text(error))}))
        else:
            await sender(json_text({"acked": answer.cursor}))


def _acked(text: str | None) -> int | None:
    """The seq of `{"ack": SEQ}`; None if it is something else."""
    try:
        match json.loads(text or ""):
            case {"ack": int(seq), **others} if not others and 0 <= seq <= MAX_SEQ:
                return None if isinstance(seq, bool) else seq
    except (ValueError, RecursionError):
        return None
    return None
