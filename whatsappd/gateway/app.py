"""The gateway's application: its routes behind the admission, with what all requests share."""

from __future__ import annotations

import trio

from whatsappd.gateway import events, messages, monitoring, sessions
from whatsappd.gateway.admission import RequestAdmission
from whatsappd.gateway.answers import HttpAnswer, Receive, Send
from whatsappd.gateway.auth import Authenticator
from whatsappd.gateway.daemon_link import DaemonLink
from whatsappd.gateway.documentation import documentation_of
from whatsappd.gateway.event_streams import Streams
from whatsappd.gateway.page import routes as page
from whatsappd.gateway.requests import HttpRequest, Scope, Shared, StreamedAnswer
from whatsappd.gateway.routing import RouteTable
from whatsappd.gateway.webhooks import routes as webhooks
from whatsappd.gateway.websocket import AcceptedWebSocket
from whatsappd.rules.bounds import HTTP_REQUESTS, Places
from whatsappd.supervision import Supervision

#: What the OpenAPI document tells of, in this order. What is not under `/v1/` needs no key.
DOCUMENTED = (
    messages.routes,
    sessions.routes,
    events.routes,
    webhooks.routes,
    monitoring.routes,
)


class Application:
    """An ASGI application; setting `stopping` ends its streams.

    Args:
        local_only, behind_proxy: see `admission.RequestAdmission`.
    """

    def __init__(
        self,
        link: DaemonLink,
        authenticator: Authenticator,
        *,
        local_only: bool,
        behind_proxy: bool,
    ) -> None:
        documentation = documentation_of(each for routes in DOCUMENTED for each in routes.all)
        self._table = RouteTable([*DOCUMENTED, documentation, page.routes])
        self.stopping = trio.Event()
        self.supervision = Supervision()
        self.streams = Streams(authenticator, self.stopping)
        self.requests = Places(HTTP_REQUESTS)  # under way, by caller
        self._shared = Shared(link, self.streams, self.supervision, self.stopping)
        self._admission = RequestAdmission(
            self._answer,
            self._upgrade,
            authenticator,
            requests=self.requests,
            local_only=local_only,
            behind_proxy=behind_proxy,
        )
        link.on_revoked(self.streams.revoke)
        link.report(self.requests.reports)
        link.report(self.streams.report)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._admission(scope, receive, send)

    async def _answer(self, request: HttpRequest) -> HttpAnswer | StreamedAnswer:
        return await self._table.answer(request, self._shared)

    async def _upgrade(self, request: HttpRequest, websocket: AcceptedWebSocket) -> None:
        await self._table.upgrade(request, self._shared, websocket)
