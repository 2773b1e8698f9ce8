"""`events.*`: replay the log from a cursor, then follow it live, without a gap or a duplicate.

Each subscription is a task of its connection that reads from the shared log at its own pace. A
subscriber that does not read lags behind and disturbs nobody; its connection is dropped when the
transport's limit is reached, and it resumes from its cursor.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec
import trio

from whatsappd.api import events as api
from whatsappd.api.events import MAX_PAGE, EventsPage, LoggedEvent
from whatsappd.errors import Denied, InvalidParams, TooManyRequests, UnknownSubscription
from whatsappd.handlers.access import AccessControl
from whatsappd.handlers.auditing import QR, line_of
from whatsappd.model.audit import AuditRecord
from whatsappd.model.company import validate_company
from whatsappd.model.consumer import is_webhook, own_name
from whatsappd.model.event import EVENT_TYPES, SESSION_QR
from whatsappd.model.stored_event import StoredEvent
from whatsappd.rpc.method import Call, Method
from whatsappd.rules.bounds import SUBSCRIPTIONS, Places
from whatsappd.store.port import Consumers, EventLog
from whatsappd.wire.frames import pack
from whatsappd.wire.rpc import NOTIFICATION

#: Packed batches kept for subscribers with the same filter; each has 1 MiB at most.
SHARED = 8
#: Of one connection: each is a task that wakes with every event, and one that filters as no other
#: does packs for itself. A client needs one, or one for each company that it looks at.
MAX_SUBSCRIPTIONS = 64
#: Packed events in one page; leaves room in an answer (1 MiB) for the frame around them.
_PAGE_BYTES = 900_000

_DECODER = msgspec.msgpack.Decoder(LoggedEvent)

#: Subscription, what is chosen, the stretch of the log, and `EventLog.deletions`: what makes a
#: batch's bytes.
_Which = tuple[int, "Chosen", int, int, int]


class Chosen(NamedTuple):
    """Which events a reader gets.

    Attributes:
        companies: those of these companies; None: of all.
        types: those of these types; None: of all.
        codes: QR codes of these companies only; None: of all. A caller who may only read a company
            does not get its codes, because whoever scans one gets its messages.
    """

    companies: frozenset[str] | None
    types: frozenset[str] | None
    codes: frozenset[str] | None


class EventsApi:
    def __init__(
        self,
        log: EventLog,
        consumers: Consumers,
        access: AccessControl,
        looked: Callable[[AuditRecord], None] = lambda _line: None,
    ) -> None:
        """
        Args:
            looked: takes the audit trail's line when a QR code is shown to somebody.
        """
        self._log = log
        self._consumers = consumers
        self._access = access
        self._looked = looked
        # By (connection, subscription). Subscriptions are numbered for each connection anew, so
        # that most have the same number, and what they are sent can be the same bytes.
        self._scopes: dict[tuple[int, int], trio.CancelScope] = {}
        self._cursors: dict[tuple[int, int], int] = {}
        self._subscribed: Counter[int] = Counter()  # by connection
        self._places = Places(SUBSCRIPTIONS)  # by user
        # The latest batches, and the companies whose codes are in them.
        self._shared: dict[_Which, tuple[bytes, frozenset[str]]] = {}

    @property
    def last_seq(self) -> int:
        return self._log.last_seq

    def report(self) -> list[dict[str, Any]]:
        """For `daemon.limits`."""
        return [self._places.report()]

    def lags(self) -> list[int]:
        """How many events each subscription has not been given yet."""
        return [self._log.last_seq - cursor for cursor in self._cursors.values()]

    def methods(self) -> list[Method]:
        return [
            Method(api.SUBSCRIBE, self._subscribe),
            Method(api.UNSUBSCRIBE, self._unsubscribe),
            Method(api.READ, self._read),
            Method(api.ACK, self._ack),
            Method(api.FORGET, self._forget),
        ]

    def watch(self, call: Call, company: str, *, after: int) -> int:
        """Subscribe a caller to one company's events after `after`. Returns the subscription's id.

        Raises:
            TooManyRequests: see `check_room`.
        """
        codes = self._access.linkable(call)
        return self._begin(call, after, Chosen(frozenset({company}), None, codes))

    def _chosen(self, call: Call, what: str, params: api.Subscribe | api.ReadEvents) -> Chosen:
        """The events that a caller asks for, without those that it may not see.

        Raises:
            InvalidParams: a company or a type is not valid.
            Denied: the caller may not read one of the companies; or it asks for QR codes, and may
                see those of none of them.
        """
        _check_filter(params)
        companies = self._access.readable(call, what, params.companies)
        codes = self._access.linkable(call)
        if (
            codes is not None
            and SESSION_QR in (params.types or ())
            and not (codes if companies is None else codes & companies)
        ):
            raise Denied(
                f"types: {SESSION_QR}: QR codes are for those who may link the company: this user "
                "may only read it",
                field="types",
            )
        types = None if params.types is None else frozenset(params.types)
        return Chosen(companies, types, codes)

    async def _subscribe(self, call: Call, params: api.Subscribe) -> api.Subscribed:
        """Replay behind `after` (or the consumer's cursor; without both: only what comes), then
        follow."""
        self.check_room(call)
        chosen = self._chosen(call, "events.subscribe", params)
        after = params.after
        if params.consumer is not None:
            cursor = await self._consumers.place(self._own_consumer(call, params.consumer), after)
            after = cursor if after is None else after
        if after is None:
            after = self._log.last_seq
        gap = (await self._log.read(after, 1, companies=chosen.companies)).gap
        # In one step with the answer, which therefore leaves before the first event.
        subscription = self._begin(call, after, chosen, gap or 0)
        return api.Subscribed(
            subscription=subscription, after=after, last_seq=self._log.last_seq, gap=gap
        )

    async def _read(self, call: Call, params: api.ReadEvents) -> EventsPage:
        chosen = self._chosen(call, "events.read", params)
        batch = await self._log.read(params.after, params.limit, **chosen._asdict())
        if codes := _with_codes(batch.events):
            self._record_look(call, "events.read", codes)
        events: list[LoggedEvent] = []
        following, size = batch.last, 0
        for stored in batch.events:
            size += len(stored.packed)
            if events and size > _PAGE_BYTES:
                following = events[-1].seq
                break
            events.append(_DECODER.decode(stored.packed))
        return EventsPage(events=events, next=following, last_seq=self._log.last_seq, gap=batch.gap)

    def _unsubscribe(self, call: Call, params: api.Unsubscribe) -> api.Unsubscribed:
        scope = self._scopes.get((id(call.connection), params.subscription))
        if scope is None:
            raise UnknownSubscription(
                f"subscription: this connection has no subscription {params.subscription}",
                subscription=params.subscription,
            )
        scope.cancel()
        return api.Unsubscribed(subscription=params.subscription)

    async def _ack(self, call: Call, params: api.Acknowledge) -> api.MovedCursor:
        consumer = self._own_consumer(call, params.consumer)
        return api.MovedCursor(cursor=await self._consumers.acknowledge(consumer, params.seq))

    async def _forget(self, call: Call, params: api.OneConsumer) -> api.ForgottenConsumer:
        await self._consumers.forget(self._own_consumer(call, params.consumer))
        return api.ForgottenConsumer(consumer=params.consumer)

    def _own_consumer(self, call: Call, name: str) -> str:
        """The consumer that a caller means by `name`: one of their own.

        Root and the daemon's own user also reach those of others, by their whole names.

        Raises:
            InvalidParams: it is a webhook's, which moves when an event was delivered.
        """
        if is_webhook(name):
            raise InvalidParams(
                f"consumer: {name!r:.80} is a webhook's place, which its deliveries move: take "
                "another name",
                field="consumer",
            )
        owner = self._access.owner_of(call)
        return name if owner is None else own_name(owner, name)

    def check_room(self, call: Call) -> None:
        """Check that a caller may subscribe once more. Call it before doing anything else for that.

        Raises:
            TooManyRequests: the connection has MAX_SUBSCRIPTIONS already, or its user too many.
        """
        with self._places.place(self._access.holder_of(call)):
            pass
        if self._subscribed[id(call.connection)] >= MAX_SUBSCRIPTIONS:
            raise TooManyRequests(
                f"this connection has {MAX_SUBSCRIPTIONS} subscriptions: end some with "
                "events.unsubscribe, or follow several companies with one",
                limit=MAX_SUBSCRIPTIONS,
            )

    def _begin(self, call: Call, after: int, chosen: Chosen, gap: int = 0) -> int:
        connection = call.connection
        self.check_room(call)  # others may have begun meanwhile
        subscription = 1
        while (id(connection), subscription) in self._scopes:
            subscription += 1
        if connection.closed:
            return subscription  # where nothing would be started, nor come to its end
        holder = self._access.holder_of(call)
        self._places.take(holder)
        self._subscribed[id(connection)] += 1
        scope = self._scopes[id(connection), subscription] = trio.CancelScope()

        async def follow() -> None:
            try:
                with scope:
                    await self._follow(call, subscription, after, chosen, gap)
            finally:
                del self._scopes[id(connection), subscription]
                self._cursors.pop((id(connection), subscription), None)
                self._places.give(holder)
                self._subscribed[id(connection)] -= 1
                if not self._subscribed[id(connection)]:
                    del self._subscribed[id(connection)]

        if call.actor is not None:
            connection.bind_to(call.actor)
        connection.start_soon(follow)
        return subscription

    async def _follow(
        self,
        call: Call,
        subscription: int,
        cursor: int,
        chosen: Chosen,
        gap: int,
    ) -> None:
        """Send events from `cursor` on, until cancelled.

        Args:
            gap: the gap that the caller was told of already; 0 if none.
        """
        connection = call.connection
        asked = chosen._asdict()
        while True:
            self._cursors[id(connection), subscription] = cursor
            await self._log.wait_beyond(cursor)
            # Without a further checkpoint where memory has it: with many subscribers, the turns of
            # their tasks are what costs.
            batch = self._log.read_tail(cursor, MAX_PAGE, **asked)
            if batch is None:
                batch = await self._log.read(cursor, MAX_PAGE, **asked)
            if batch.gap is not None and batch.gap > gap:
                # Retention overtook a subscriber that lagged behind.
                gap = batch.gap
                await connection.notify(
                    "events.gap", {"subscription": subscription, "first_seq": batch.gap}
                )
            if batch.events:
                which = (subscription, chosen, cursor, batch.last, self._log.deletions)
                packed, codes = self._packed(which, batch.events)
                if codes:
                    self._record_look(call, "events.subscribe", codes)
                if not connection.offer_packed(packed):
                    await connection.notify_packed(packed)
            cursor = batch.last

    def _record_look(self, call: Call, method: str, companies: frozenset[str]) -> None:
        for company in companies:
            self._looked(line_of(call.peer, call.actor, method, company, QR, "ok"))

    def _packed(self, which: _Which, events: Sequence[StoredEvent]) -> tuple[bytes, frozenset[str]]:
        """The packed notifications of `events`, and the companies whose QR codes are among them.

        Subscribers with the same filter share the bytes.
        """
        found = self._shared.get(which)
        if found is None:
            prefix = _prefix(which[0])
            packed = b"".join([part for stored in events for part in (prefix, stored.packed)])
            if len(self._shared) >= SHARED:
                del self._shared[next(iter(self._shared))]
            found = self._shared[which] = packed, _with_codes(events)
        return found


def _with_codes(events: Sequence[StoredEvent]) -> frozenset[str]:
    return frozenset([each.company for each in events if each.type == SESSION_QR])


def _check_filter(params: api.Subscribe | api.ReadEvents) -> None:
    for company in params.companies or ():
        validate_company(company, field="companies")
    for name in params.types or ():
        if name not in EVENT_TYPES:
            raise InvalidParams(
                f"types: there is no event type {name!r:.80} (accepted: {', '.join(EVENT_TYPES)})",
                field="types",
            )


def _prefix(subscription: int) -> bytes:
    """All of an `event` notification before the event's own bytes, which everybody shares.

    [2, "event", [{"subscription": n, "event": <packed event>}]]
    """
    return b"".join(
        [
            b"\x93",  # array of 3
            pack(NOTIFICATION),
            pack("event"),
            b"\x91\x82",  # array of 1, map of 2
            pack("subscription"),
            pack(subscription),
            pack("event"),
        ]
    )
