"""`message.*`: accept messages into the outbox, and show, cancel and resolve them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from operator import attrgetter

import msgspec

from whatsappd.api import messages as api
from whatsappd.api.messages import OutboxMessage, OutboxPage
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
from whatsappd.model.content import Sendable, Text
from whatsappd.model.jid import parse_recipient
from whatsappd.model.message import NewMessage, OutboxState, Row
from whatsappd.model.session import SessionState
from whatsappd.rpc.method import Call, Method
from whatsappd.rules.delivery import SENT_OR_BEYOND
from whatsappd.sessions.pool import Pool
from whatsappd.sessions.settings import SessionSettings
from whatsappd.store.port import Outbox

#: Leaves room in an answer for the frame around its rows.
_LIST_BYTES = 900_000

#: What `wait` waits for.
_WAITS: dict[str, frozenset[OutboxState]] = {
    "sent": SENT_OR_BEYOND,
    "delivered": SENT_OR_BEYOND - {OutboxState.SENT},
}


#: What names one message.
_NamesMessage = api.OneMessage | api.WaitForMessage | api.ResolveMessage


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
            Method(api.SEND, self._send),
            Method(api.GET, self._get),
            Method(api.WAIT, self._wait),
            Method(api.LIST, self._list),
            Method(api.CANCEL, self._cancel),
            Method(api.RESOLVE, self._resolve),
        ]

    async def _send(self, call: Call, params: api.SendMessage) -> OutboxMessage:
        self._pool.get(validate_company(params.company))
        to = parse_recipient(params.to)
        new = NewMessage(
            company=params.company,
            chat=str(to),
            content=_content_of(params),
            key=params.key,
            expires_ms=settled_ms() + params.ttl_ms if params.ttl_ms else None,
            on_uncertain=params.on_uncertain,
            owner=self._access.owner_of(call),
        )
        row = await (self._accept_paid(new) if params.no_queue else self._accept(new))
        if params.wait != "queued":
            row = await self._outbox.view.wait(row.id, _WAITS[params.wait])
        return shown_message(row)

    async def _accept(self, new: NewMessage) -> Row:
        row, _created = await self._outbox.submissions.accept(new, self._settings.queue_limit)
        return row

    async def _accept_paid(self, new: NewMessage) -> Row:
        """Accept a message that was sent with `no_queue`, counting it in the rate limit first.

        Raises:
            NotConnected: the session is not connected, so the message would wait.
            RateLimited: the limit is reached; `data.retry_after_ms` says when to try again.
            UnknownCompany: the company was removed meanwhile.
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

    async def _get(self, call: Call, params: api.OneMessage) -> OutboxMessage:
        return shown_message(await self._readable(call, params))

    async def _wait(self, call: Call, params: api.WaitForMessage) -> OutboxMessage:
        await self._readable(call, params)
        return shown_message(await self._outbox.view.wait(params.id, _WAITS[params.for_]))

    async def _list(self, call: Call, params: api.ListMessages) -> OutboxPage:
        company = self._one_readable(call, params.company)
        found = await self._outbox.view.list_rows(
            company, params.states, before=params.before, limit=params.limit + 1
        )
        rows = _that_fit(found[: params.limit])
        more = len(found) > len(rows)
        return OutboxPage(
            rows=[shown_message(row) for row in rows],
            next=rows[-1].id if more and rows else None,
        )

    def _one_readable(self, call: Call, company: str | None) -> str | None:
        """The company whose messages to list; None if those of all companies."""
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

    async def _cancel(self, call: Call, params: api.OneMessage) -> OutboxMessage:
        row = await self._own(call, "message.cancel", params)
        with _concerning(row.company):
            return shown_message(await self._outbox.submissions.cancel(params.id))

    async def _resolve(self, call: Call, params: api.ResolveMessage) -> OutboxMessage:
        row = await self._own(call, "message.resolve", params)
        with _concerning(row.company):
            return shown_message(await self._outbox.submissions.resolve(params.id, params.as_))

    async def _readable(self, call: Call, params: _NamesMessage) -> Row:
        """The message that a caller names.

        Raises:
            UnknownMessage: it does not exist, or the caller may not see it. The answer is the same
                in both cases, so that nobody learns of others' messages.
        """
        row = await self._outbox.view.get(params.id)
        is_its = params.company is None or params.company == row.company
        if is_its and self._access.may_read(call, row.company):
            return row
        raise unknown_message(params.id).concerning(row.company)

    async def _own(self, call: Call, what: str, params: _NamesMessage) -> Row:
        """The message that a caller names and may change.

        Raises:
            UnknownMessage: see `_readable`.
            Denied: the caller may read it, but not change it.
        """
        row = await self._readable(call, params)
        self._access.require(call, what, row.company, write=True)
        return row


#: Of a row, in the order of an answer's fields. Lists have hundreds of rows, so no map is made.
_shown_fields = attrgetter(*OutboxMessage.__struct_fields__)


def shown_message(row: Row) -> OutboxMessage:
    """A row as callers see it, without its owner."""
    return OutboxMessage(*_shown_fields(row))


def _content_of(params: api.SendMessage) -> Sendable:
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
    """Note the company in an error that passes, for the audit trail."""
    try:
        yield
    except WhatsappdError as error:
        error.company = company
        raise


def _that_fit(rows: Sequence[Row]) -> Sequence[Row]:
    """As many rows as one answer holds, but at least one."""
    size = 0
    for place, row in enumerate(rows):
        size += 1000 + 4 * len(row.text) + len(msgspec.msgpack.encode(row.content))
        if size > _LIST_BYTES and place:
            return rows[:place]
    return rows
