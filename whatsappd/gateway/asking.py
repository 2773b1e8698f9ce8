"""What routes are given: who asks, and the daemon, in one value.

FastAPI puts it together for each request; `door` has identified the caller before.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

from fastapi import Depends, Path
from starlette.requests import HTTPConnection

from whatsappd.gateway.auth import ADMIN, READ, SEND, Identity
from whatsappd.gateway.link import DaemonLink
from whatsappd.gateway.models import COMPANY_PATTERN


class Asking(NamedTuple):
    """One request: its caller, checked for the route's scope, and the way to the daemon."""

    identity: Identity
    link: DaemonLink
    prefix: str = ""

    def path(self, path: str) -> str:
        """`path` as the caller reaches it: our own proxy may have all of it below a path."""
        return self.prefix + path

    async def call(self, method: str, **arguments: Any) -> Any:
        """Call the daemon in the caller's name. Raises as `DaemonLink.call` does."""
        return await self.link.call(method, arguments, actor=self.identity.actor)


def asking_of(connection: HTTPConnection, scope: str) -> Asking:
    """Raises Denied if the caller's key does not include `scope`."""
    identity: Identity = connection.state.identity
    identity.check_scope(scope)
    link: DaemonLink = connection.app.state.link
    return Asking(identity, link, connection.state.prefix)


class _Needs:
    """A dependency: the caller has `scope`, and is for the path's company, if there is one."""

    def __init__(self, scope: str) -> None:
        self._scope = scope

    async def __call__(self, connection: HTTPConnection) -> Asking:
        asking = asking_of(connection, self._scope)
        company = connection.path_params.get("company")
        if company is not None:
            asking.identity.check_company(company)
        return asking


Reading = Annotated[Asking, Depends(_Needs(READ))]
Sending = Annotated[Asking, Depends(_Needs(SEND))]
Administering = Annotated[Asking, Depends(_Needs(ADMIN))]

Company = Annotated[str, Path(pattern=COMPANY_PATTERN, description="The company's id.",
                              examples=["acme"])]  # fmt: skip
