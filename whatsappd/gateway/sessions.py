"""`/v1/sessions`: make, look at, configure, link, stop and remove companies' sessions."""

from __future__ import annotations

from io import BytesIO
from typing import Annotated, ClassVar, Literal

import msgspec
import segno
from msgspec import Meta

from whatsappd.api import sessions as api
from whatsappd.api.declaration import Examples, NoParams, Params, Result
from whatsappd.api.sessions import LimitChanges, SessionInfo, SessionList, StartOptions
from whatsappd.api.types import CompanyId, OneCompany
from whatsappd.errors import UnknownCompany
from whatsappd.gateway.answers import JSON, NOT_KEPT, TEXT, HttpAnswer, as_json
from whatsappd.gateway.auth import ADMIN, READ
from whatsappd.gateway.requests import RoutedRequest
from whatsappd.gateway.routing import Possible, Routes
from whatsappd.model.session import SessionState

routes = Routes("sessions")
_ONE = "/v1/sessions/{company}"
_STARTED = {
    200: Possible(SessionInfo, "Started."),
    201: Possible(SessionInfo, "Made, and started."),
}

#: Media types of a QR code, by the name for `?format=`.
FORMATS = {"json": JSON, "text": "text/plain", "png": "image/png", "svg": "image/svg+xml"}

Nothing = RoutedRequest[NoParams, NoParams]


class NewSession(StartOptions, kw_only=True):
    """Make a company's session, and start it."""

    examples: ClassVar[Examples] = ({"company": "acme"},)

    company: CompanyId


class Removal(Params):
    force: Annotated[
        bool, Meta(description="Also if WhatsApp cannot be told of the unlinking.")
    ] = False


class CodeFormat(Params):
    format: Annotated[
        Literal["json", "text", "png", "svg"] | None,
        Meta(description="Rather than by the Accept header."),
    ] = None


class PairingProgress(Result):
    """How far linking is: ask again, or follow the events, until `linked`."""

    company: CompanyId
    state: SessionState
    cause: str
    linked: bool
    jid: str | None = None
    qr: str | None = None


async def _start(asked: RoutedRequest[NoParams, StartOptions], company: str) -> HttpAnswer:
    """Make it if it is new (201), and start it."""
    status = 200
    try:
        await asked.call(api.STATUS, OneCompany(company=company))
    except UnknownCompany:
        status = 201
    started = await asked.call(api.START, _wishes(company, asked.body))
    return as_json(started, status=status, headers=asked.located(f"/v1/sessions/{company}"))


def _wishes(company: str, given: StartOptions) -> api.StartSession:
    return api.StartSession(
        company=company,
        take_over=given.take_over,
        new_account=given.new_account,
        queued=given.queued,
    )


def _shown(asked: Nothing, found: SessionInfo) -> SessionInfo:
    """The session as its caller may see it."""
    if not asked.identity.sees_codes:
        found.qr = None
    return found


@routes.route(
    "GET", "/v1/sessions", "All sessions that the key may see", scope=READ, answers=SessionList
)
async def list_sessions(asked: Nothing) -> SessionList:
    found = await asked.call(api.LIST, NoParams())
    companies = asked.identity.companies
    return SessionList(
        sessions=[
            _shown(asked, each)
            for each in found.sessions
            if companies is None or each.company in companies
        ]
    )


@routes.route(
    "POST",
    "/v1/sessions",
    "Make and start a session",
    scope=ADMIN,
    body=NewSession,
    body_required=True,
    answers=_STARTED,
)
async def create_session(asked: RoutedRequest[NoParams, NewSession]) -> HttpAnswer:
    asked.identity.check_company(asked.body.company)
    return await _start(asked, asked.body.company)


@routes.route("PUT", _ONE, "Make and start a session", scope=ADMIN, body=StartOptions,
              answers=_STARTED)  # fmt: skip
async def put_session(asked: RoutedRequest[NoParams, StartOptions]) -> HttpAnswer:
    return await _start(asked, asked.company.company)


@routes.route("GET", _ONE, "One session", scope=READ, answers=SessionInfo)
async def get_session(asked: Nothing) -> SessionInfo:
    return _shown(asked, await asked.call(api.STATUS, asked.company))


@routes.route(
    "PATCH",
    _ONE,
    "Set a session's limits",
    scope=ADMIN,
    body=LimitChanges,
    body_required=True,
    answers=api.ConfiguredSession,
)
async def configure_session(asked: RoutedRequest[NoParams, LimitChanges]) -> api.ConfiguredSession:
    changes = msgspec.structs.asdict(asked.body)
    return await asked.call(
        api.CONFIGURE, api.ConfigureSession(company=asked.company.company, **changes)
    )


@routes.route(
    "DELETE",
    _ONE,
    "Unlink, stop, and delete what is kept",
    scope=ADMIN,
    query=Removal,
    answers={204: Possible(None, "It is gone.")},
)
async def remove_session(asked: RoutedRequest[Removal, NoParams]) -> HttpAnswer:
    removal = api.RemoveSession(company=asked.company.company, force=asked.query.force)
    await asked.call(api.REMOVE, removal)
    return HttpAnswer(status=204)


@routes.route("POST", f"{_ONE}/start", "Start a session that exists", scope=ADMIN,
              body=StartOptions, answers=SessionInfo)  # fmt: skip
async def start_session(asked: RoutedRequest[NoParams, StartOptions]) -> SessionInfo:
    await asked.call(api.STATUS, asked.company)  # 404 rather than a new company
    return await asked.call(api.START, _wishes(asked.company.company, asked.body))


@routes.route("POST", f"{_ONE}/stop", "Stop a session; it stays linked", scope=ADMIN,
              answers=SessionInfo)  # fmt: skip
async def stop_session(asked: Nothing) -> SessionInfo:
    return await asked.call(api.STOP, asked.company)


@routes.route("POST", f"{_ONE}/restart", "Stop a session, and start it with a new worker",
              scope=ADMIN, answers=SessionInfo)  # fmt: skip
async def restart_session(asked: Nothing) -> SessionInfo:
    return await asked.call(api.RESTART, asked.company)


@routes.route("POST", f"{_ONE}/logout", "Unlink the device at WhatsApp", scope=ADMIN,
              answers=SessionInfo)  # fmt: skip
async def log_out_session(asked: Nothing) -> SessionInfo:
    return await asked.call(api.LOGOUT, asked.company)


@routes.route(
    "GET",
    f"{_ONE}/qr",
    "The QR code to scan now",
    scope=ADMIN,
    query=CodeFormat,
    answers={
        200: Possible(api.ShownQrCode, "The code.", ("text/plain", "image/png", "image/svg+xml"))
    },
)
async def get_qr(asked: RoutedRequest[CodeFormat, NoParams]) -> HttpAnswer:
    """JSON, or the code as text, PNG or SVG, by `format` or by the Accept header.

    Whoever scans it owns the account's messages, so it takes the scope `admin`. While no code is
    shown the answer is 409, and says in which state the session is.
    """
    found = await asked.call(api.QR, asked.company)
    chosen = chosen_format(asked.query.format, asked.request.headers.get("accept", ""))
    if chosen == "json":
        return as_json(found, headers=NOT_KEPT)
    if chosen == "text":
        return HttpAnswer(found.qr.encode(), media_type=TEXT, headers=NOT_KEPT)
    return HttpAnswer(image(found.qr, chosen), media_type=FORMATS[chosen], headers=NOT_KEPT)


@routes.route("GET", f"{_ONE}/pairing", "How far linking is", scope=ADMIN, answers=PairingProgress)
async def get_pairing(asked: Nothing) -> HttpAnswer:
    status = await asked.call(api.STATUS, asked.company)
    progress = PairingProgress(
        company=status.company,
        state=status.state,
        cause=status.cause,
        linked=status.jid is not None,
        jid=status.jid,
        qr=status.qr,
    )
    return as_json(progress, headers=NOT_KEPT)


def chosen_format(asked: str | None, accept: str) -> str:
    """The format for `?format=`, else the one that the Accept header likes best, else JSON."""
    if asked is not None:
        return asked
    best, best_weight = "json", 0.0
    for entry in accept.split(","):
        kind, *parameters = (part.strip().lower() for part in entry.split(";"))
        weight = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    weight = float(parameter[2:])
                except ValueError:
                    weight = 0.0
        for name, media_type in FORMATS.items():
            if kind == media_type and weight > best_weight:
                best, best_weight = name, weight
    return best


def image(text: str, form: str) -> bytes:
    """The code as `png` or `svg`."""
    drawn = BytesIO()
    segno.make_qr(text, error="l").save(drawn, kind=form, scale=6, border=4)
    return drawn.getvalue()
