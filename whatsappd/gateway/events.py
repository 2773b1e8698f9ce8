"""`/v1/events`: a page of the log, server-sent events, and the WebSocket, at one path."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Annotated, Any

import trio
from fastapi import APIRouter, Query, Request, WebSocket
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from whatsappd.errors import WhatsappdError
from whatsappd.gateway.asking import Asking, Reading, asking_of
from whatsappd.gateway.auth import READ, SUBPROTOCOL
from whatsappd.gateway.json_answer import JsonAnswer, json_text
from whatsappd.gateway.link import ANSWER_WITHIN, within
from whatsappd.gateway.models import CONSUMER_PATTERN, MAX_SEQ, CompanyId, Events
from whatsappd.gateway.problems import as_text
from whatsappd.gateway.streaming import (
    BAD_MESSAGE,
    DAEMON_AWAY,
    GOING_AWAY,
    TOO_SLOW,
    UNAUTHENTICATED,
    Ended,
    Sender,
    Streams,
    Wanted,
    wanted_by,
)
from whatsappd.rpc.client import RpcClient

router = APIRouter(tags=["events"], default_response_class=JsonAnswer)

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


@router.get(
    "/v1/events",
    summary="Replay the log; follow it by SSE or WebSocket",
    description=_DOC,
    response_model=Events,
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
)
async def read_events(
    request: Request,
    asking: Reading,
    after: Annotated[
        int | None, Query(ge=0, le=MAX_SEQ, description="Default: 0, the oldest there is.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    company: Annotated[list[CompanyId] | None, Query(description="Only these companies.")] = None,
    type: Annotated[
        list[str] | None, Query(description="Only these types.", examples=[["message.received"]])
    ] = None,
    consumer: Annotated[
        str | None, Query(pattern=CONSUMER_PATTERN, description="For streams; see above.")
    ] = None,
) -> Any:
    if "text/event-stream" in request.headers.get("accept", ""):
        return EventStreamResponse(request, asking, wanted_by(request, asking))
    found = await asking.call(
        "events.read",
        after=after or 0,
        limit=limit,
        companies=asking.identity.among(company),
        types=asking.identity.types(type),
    )
    # As it is: a model would write bytes in another way than the streams do.
    return JsonAnswer(found)


class EventStreamResponse(Response):
    """Server-sent events (WHATWG HTML, section 9.2). An error before the first one is a problem."""

    media_type = "text/event-stream"

    def __init__(self, request: Request, asking: Asking, wanted: Wanted) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._request = request
        self._asking = asking
        self._wanted = wanted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        streams: Streams = self._request.app.state.streams

        async def write(text: str) -> None:
            await send({"type": "http.response.body", "body": text.encode(), "more_body": True})

        async def until_gone() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        async with streams.subscribed(self._asking, self._wanted) as (client, ready):
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            outlet = _SseOutlet(Sender(write))
            try:
                await write(": following\n\n")
                if ready["gap"] is not None:
                    await outlet.gap(ready["gap"])
                await streams.follow(self._request, client, ready["after"], outlet, until_gone)
            except Ended as ended:
                told = json_text({"code": ended.code, "reason": ended.reason})
                with trio.move_on_after(CLOSE_WITHIN):
                    await write(f"event: stream.ended\ndata: {told}\n\n")
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class _SseOutlet:
    def __init__(self, sender: Sender) -> None:
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
    def __init__(self, sender: Sender) -> None:
        self._send = sender

    async def event(self, event: dict[str, Any]) -> None:
        await self._send(json_text({"event": event}))

    async def gap(self, first_seq: int) -> None:
        await self._send(json_text({"gap": {"first_seq": first_seq}}))

    async def heartbeat(self, last_seq: int) -> None:
        await self._send(json_text({"heartbeat": {"seq": last_seq}}))


@router.websocket("/v1/events")
async def follow_events(websocket: WebSocket) -> None:
    """See `_DOC`. What is wrong before it begins, `door` answers as HTTP, with a problem."""
    asking = asking_of(websocket, READ)
    wanted = wanted_by(websocket, asking)
    streams: Streams = websocket.app.state.streams
    async with streams.subscribed(asking, wanted) as (client, ready):
        offered = websocket.scope.get("subprotocols") or []
        await websocket.accept(subprotocol=SUBPROTOCOL if SUBPROTOCOL in offered else None)
        sender = Sender(websocket.send_text)
        with suppress(WebSocketDisconnect):
            try:
                begin = {name: ready[name] for name in ("after", "last_seq", "gap")}
                await sender(json_text({"ready": begin}))
                await streams.follow(
                    websocket,
                    client,
                    ready["after"],
                    _WebSocketOutlet(sender),
                    lambda: _take_acks(
                        websocket, client, wanted.consumer, sender, asking.identity.actor
                    ),
                )
            except Ended as ended:
                with trio.move_on_after(CLOSE_WITHIN):
                    # RFC 6455: a reason has at most 123 bytes.
                    await websocket.close(
                        ended.code, ended.reason.encode()[:120].decode("ascii", "ignore")
                    )


async def _take_acks(
    websocket: WebSocket, client: RpcClient, consumer: str | None, sender: Sender, actor: str
) -> None:
    """Move the consumer's cursor as the client says, until it hangs up."""
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            return
        seq = _acked(message.get("text"))
        if seq is None:
            raise Ended(BAD_MESSAGE, 'send {"ack": SEQ}, nothing else')
        if consumer is None:
            raise Ended(BAD_MESSAGE, "acks are for named consumers: connect with ?consumer=NAME")
        try:
            acked = {"consumer": consumer, "seq": seq}
            answer = await within(ANSWER_WITHIN, client.request("events.ack", acked, actor=actor))
        except WhatsappdError as error:
            if error.http_status >= 500:
                raise
            await sender(json_text({"error": json.loads(as_text(error))}))
        else:
            await sender(json_text({"acked": answer["cursor"]}))


def _acked(text: str | None) -> int | None:
    """The seq of `{"ack": SEQ}`; None if it is something else."""
    try:
        match json.loads(text or ""):
            case {"ack": int(seq), **others} if not others and 0 <= seq <= MAX_SEQ:
                return None if isinstance(seq, bool) else seq
    except (ValueError, RecursionError):
        return None
    return None
