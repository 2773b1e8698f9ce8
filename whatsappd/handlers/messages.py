"""`message.*`: accept messages into the outbox, and look at what became of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Literal

import msgspec

from whatsappd.api.params import MAX_KEY, CompanyId, Params
from whatsappd.clock import settled_ms
from whatsappd.errors import (
    InvalidParams,
    NotConnected,
    RateLimited,
    UnknownCompany,
    WhatsappdError,
    unknown_message,
)
from whatsappd.handlers.access import AccessControl
from whatsappd.model.company import validate_company
from whatsappd.model.content import MAX_TEXT, Sendable, Text
from whatsappd.model.jid import parse_recipient
from whatsappd.model.message import NewMessage, OnUncertain, OutboxState, Row
from whatsappd.model.session import SessionState
from whatsappd.rpc.method import Call, Concerns, Method
from whatsappd.rules.delivery import SENT_OR_BEYOND
from whatsappd.sessions.pool import Pool
from whatsappd.sessions.settings import SessionSettings
from whatsappd.store.port import Outbox

#: Rows of one answer. A row has at most 64 KiB of text, and an answer at most 1 MiB.
MAX_LIST = 200
#: Leaves room in an answer for the frame around its rows.
_LIST_BYTES = 900_000

#: Ten years: longer is a slip of the finger.
MAX_TTL_MS = 10 * 366 * 24 * 3600 * 1000

#: What `wait` waits for.
_WAITS: dict[str, frozenset[OutboxState]] = {
    "sent": SENT_OR_BEYOND,
    "delivered": SENT_OR_BEYOND - {OutboxState.SENT},
}


class SendParams(Params):
    """`text` is short for `content` of kind `text`: one of the two is given."""

    company: CompanyId
    to: str
    text: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_TEXT)] | None = None
    content: Sendable | None = None
    key: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_KEY)] | None = None
    wait: Literal["queued", "sent", "delivered"] = "queued"
    ttl_ms: Annotated[int, msgspec.Meta(ge=1, le=MAX_TTL_MS)] | None = None
    on_uncertain: OnUncertain = OnUncertain.ASK
    no_queue: bool = False


class MessageId(Params):
    """`company`: whose it must be, for callers that ask for one company; else it is not found."""

    id: str
    company: CompanyId | None = None


class WaitParams(Params, rename={"for_": "for"}):
    id: str
    company: CompanyId | None = None
    for_: Literal["sent", "delivered"] = "sent"


class ResolveParams(Params, rename={"as_": "as"}):
    id: str
    as_: str
    company: CompanyId | None = None


class ListParams(Params):
    company: CompanyId | None = None
    states: list[OutboxState] | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=MAX_LIST)] = 50
    before: str | None = None


class MessagesApi:
    def __init__(
        self, pool: Pool, outbox: Outbox, settings: SessionSettings, access: AccessControl
    ) -> None:
        self._access = access
        self._pool = pool
        self._outbox = outbox
        self._settings = settings

    def methods(self) -> list[Method]:
        return [
            Method("message.send", SendParams, self._send, "Send a message.", writes=True),
            Method(
                "message.get", MessageId, self._get, "One message.",
                writes=False, concerns=Concerns.SEVERAL,
            ),
            Method(
                "message.wait", WaitParams, self._wait, "Wait until it got somewhere.",
                writes=False, concerns=Concerns.SEVERAL,
            ),
            Method(
                "message.list", ListParams, self._list, "Messages, newest first.",
                writes=False, concerns=Concerns.SEVERAL,
            ),
            Method(
                "message.cancel", MessageId, self._cancel, "Cancel a queued one.",
                writes=True, concerns=Concerns.SEVERAL,
            ),
            Method(
                "message.resolve", ResolveParams, self._resolve, "Decide an uncertain one.",
                writes=True, concerns=Concerns.SEVERAL,
            ),
        ]  # fmt: skip

    async def _send(self, call: Call, params: SendParams) -> dict[str, Any]:
        """Answers when the row is durable, or with `wait` when it got that far or cannot any more.

        Waiting never decides whether it is sent: a caller that goes away changes nothing.
        """
        self._pool.get(validate_company(params.company))
        to = parse_recipient(params.to)
        new = NewMessage(
            company=params.company,
            chat=str(to),
            text=_content_of(params).text,
            key=params.key,
            expires_ms=settled_ms() + params.ttl_ms if params.ttl_ms else None,
            on_uncertain=params.on_uncertain,
            owner=self._access.owner_of(call),
        )
        row = await (self._accept_paid(new) if params.no_queue else self._accept(new))
        if params.wait != "queued":
            row = await self._outbox.view.wait(row.id, _WAITS[params.wait])
        return row.as_wire()

    async def _accept(self, new: NewMessage) -> Row:
        row, _created = await self._outbox.submissions.accept(new, self._settings.queue_limit)
        return row

    async def _accept_paid(self, new: NewMessage) -> Row:
        """Take the message's place in the rate limit first, for `no_queue`.

        Raises:
            NotConnected: it would wait for a connection.
            RateLimited: there is none; `data.retry_after_ms` says when there will be.
            UnknownCompany: it was removed meanwhile.
        """
        known = await self._outbox.submissions.find(new)
        if known is not None:
            return known  # it was paid for when it was made
        session = self._pool.get(new.company)
        if session.state is not SessionState.CONNECTED:
            raise NotConnected(
                f"{session.company} is not connected but {session.state} ({session.cause}); "
                "without no_queue the message would wait",
                company=session.company,
                state=str(session.state),
            )
        pacing = self._pool.pacing(new.company)
        verdict = await pacing.prepay(new.chat)
        if verdict.wait_ms:
            raise RateLimited(
                f"{new.company}: {verdict.reason}; try again in {verdict.wait_ms / 1000:.1f} s, "
                "or leave no_queue out, and the message waits for its turn",
                company=new.company,
                retry_after_ms=verdict.wait_ms,
            )
        created = False
        try:
            # The limiter may have taken its time (Redis): nothing is accepted for a company that
            # was removed meanwhile, nor for another one that has its name by now.
            if self._pool.get(new.company) is not session:
                raise UnknownCompany(
                    f"company: {new.company!r} was removed meanwhile", company=new.company
                )
            row, created = await self._outbox.submissions.accept(new, self._settings.queue_limit)
            if created:
                pacing.accepted(row)
            return row
        finally:
            if not created:
                pacing.refund(new.chat)

    async def _get(self, call: Call, params: MessageId) -> dict[str, Any]:
        return (await self._readable(call, params)).as_wire()

    async def _wait(self, call: Call, params: WaitParams) -> dict[str, Any]:
        """The row when it got that far, or never will: its `state` tells."""
        await self._readable(call, params)
        return (await self._outbox.view.wait(params.id, _WAITS[params.for_])).as_wire()

    async def _list(self, call: Call, params: ListParams) -> dict[str, Any]:
        """`next` is what to pass as `before` for the following page; nil at the end."""
        company = self._one_readable(call, params.company)
        found = await self._outbox.view.list_rows(
            company, params.states, before=params.before, limit=params.limit + 1
        )
        rows = _that_fit(found[: params.limit])
        more = len(found) > len(rows)
        return {
            "rows": [row.as_wire() for row in rows],
            "next": rows[-1].id if more and rows else None,
        }

    def _one_readable(self, call: Call, company: str | None) -> str | None:
        """The company whose messages to list; None: those of all."""
        named = None if company is None else [validate_company(company)]
        readable = self._access.readable(call, "message.list", named)
        if readable is None:
            return None
        if len(readable) != 1:
            raise InvalidParams(
                f"company: say which of those that you may look at: {', '.join(sorted(readable))}",
                field="company",
            )
        [only] = readable
        return only

    async def _cancel(self, call: Call, params: MessageId) -> dict[str, Any]:
        row = await self._own(call, "message.cancel", params)
        with _concerning(row.company):
            return (await self._outbox.submissions.cancel(params.id)).as_wire()

    async def _resolve(self, call: Call, params: ResolveParams) -> dict[str, Any]:
        row = await self._own(call, "message.resolve", params)
        with _concerning(row.company):
            return (await self._outbox.submissions.resolve(params.id, params.as_)).as_wire()

    async def _readable(self, call: Call, params: MessageId | WaitParams | ResolveParams) -> Row:
        """The message that a caller names.

        Raises:
            UnknownMessage: there is none, or it is none that the caller may see: the answer is the
                same, so that nobody learns what others have.
        """
        row = await self._outbox.view.get(params.id)
        is_its = params.company is None or params.company == row.company
        if is_its and self._access.may_read(call, row.company):
            return row
        raise unknown_message(params.id).concerning(row.company)

    async def _own(self, call: Call, what: str, params: MessageId | ResolveParams) -> Row:
        """As `_readable`; Denied if the caller may look at it, and no more."""
        row = await self._readable(call, params)
        self._access.require(call, what, row.company, write=True)
        return row


def _content_of(params: SendParams) -> Sendable:
    """What to send.

    Raises:
        InvalidParams: `text` and `content` are both given, or neither is.
    """
    if params.text is not None and params.content is not None:
        raise InvalidParams(
            "text, content: give one of the two; text is short for content of kind text",
            field="content",
        )
    if params.text is not None:
        return Text(params.text)
    if params.content is None:
        raise InvalidParams("text: is missing; give it, or content of another kind", field="text")
    return params.content


@contextmanager
def _concerning(company: str) -> Iterator[None]:
    """Lets the audit trail know which company a call was about that failed."""
    try:
        yield
    except WhatsappdError as error:
        error.company = company
        raise


def _that_fit(rows: Sequence[Row]) -> Sequence[Row]:
    """As many rows as one answer holds, but at least one."""
    size = 0
    for place, row in enumerate(rows):
        size += 1000 + 4 * len(row.text)
        if size > _LIST_BYTES and place:
            return rows[:place]
    return rows
