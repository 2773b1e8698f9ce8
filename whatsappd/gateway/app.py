"""The gateway's application: its routes behind the admission, with what all requests share."""

from __future__ import annotations

import trio

from whatsappd.gateway import events, messages, monitoring, sessions
from whatsappd.gateway.admission import RequestAdmission
from whatsappd.gateway.answers import Receive, Send
from whatsappd.gateway.auth import Authenticator
from whatsappd.gateway.daemon_link import DaemonLink
from whatsappd.gateway.documentation import documentation_of
from whatsappd.gateway.event_streams import Streams
from whatsappd.gateway.page import routes as page
from whatsappd.gateway.requests import Scope, Shared
from whatsappd.gateway.routing import RouteTable
from whatsappd.gateway.settings import Exposure
from whatsappd.gateway.webhooks import routes as webhooks
from whatsappd.rules.bounds import Places
from whatsappd.supervision import Supervision

#: What the OpenAPI document tells of, in this order. What is not under `/v1/` needs no key.
DOCUMENTED = (
    messages.routes,
    sessions.routes,
    events.routes,
    webhooks.routes,
    monitoring.routes,
)

#: With authentication, and no proxy before it.
EXPOSED = Exposure()


class Application:
    """An ASGI application; setting `stopping` ends its streams."""

    def __init__(
        self, link: DaemonLink, authenticator: Authenticator, exposure: Exposure = EXPOSED
    ) -> None:
        self.stopping = trio.Event()
        self.supervision = Supervision()
        self.streams = Streams(authenticator, self.stopping)
        shared = Shared(link, self.streams, self.supervision, self.stopping)
        documentation = documentation_of(each for routes in DOCUMENTED for each in routes.all)
        table = RouteTable([*DOCUMENTED, documentation, page.routes], shared)
        self._admission = RequestAdmission(table, authenticator, exposure)
        link.on_revoked(self.streams.revoke)
        link.report(self.requests.reports)
        link.report(self.streams.report)

    @property
    def requests(self) -> Places:
        """Those under way, by caller."""
        return self._admission.requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._admission(scope, receive, send)
