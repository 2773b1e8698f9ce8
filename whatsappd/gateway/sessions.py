"""`/v1/sessions`: make, look at, configure, link, stop and remove companies' sessions."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response

from whatsappd.errors import UnknownCompany
from whatsappd.gateway.asking import Administering, Asking, Company, Reading
from whatsappd.gateway.json_answer import JsonAnswer
from whatsappd.gateway.models import (
    Configured,
    ConfigureSession,
    CreateSession,
    Pairing,
    QrCode,
    Session,
    Sessions,
    StartSession,
)
from whatsappd.gateway.qr import FORMATS, chosen_format, image

router = APIRouter(prefix="/v1/sessions", tags=["sessions"], default_response_class=JsonAnswer)

#: A code is good for seconds: nothing on the way may keep it.
_FRESH = {"Cache-Control": "no-store"}


def _wishes(body: StartSession | None) -> dict[str, Any]:
    return (body or StartSession()).model_dump(include=set(StartSession.model_fields))


async def _start(
    asking: Asking, company: str, body: StartSession | None, response: Response
) -> Any:
    """Make it if it is new (201), and start it."""
    try:
        await asking.call("session.status", company=company)
    except UnknownCompany:
        response.status_code = 201
    response.headers["Location"] = asking.path(f"/v1/sessions/{company}")
    return await asking.call("session.start", company=company, **_wishes(body))


def _shown(asking: Asking, status: dict[str, Any]) -> Session:
    """The session as its caller may see it."""
    return Session(**status if asking.identity.sees_codes else {**status, "qr": None})


_MADE: dict[int | str, dict[str, Any]] = {201: {"model": Session, "description": "Made, started."}}


@router.get("", summary="All sessions that the key may see")
async def list_sessions(asking: Reading) -> Sessions:
    found = (await asking.call("session.list"))["sessions"]
    companies = asking.identity.companies
    return Sessions(
        sessions=[
            _shown(asking, each)
            for each in found
            if companies is None or each["company"] in companies
        ]
    )


@router.post("", summary="Make and start a session", status_code=200, responses=_MADE)
async def create_session(body: CreateSession, asking: Administering, response: Response) -> Session:
    asking.identity.check_company(body.company)
    return Session(**await _start(asking, body.company, body, response))


@router.put("/{company}", summary="Make and start a session", status_code=200, responses=_MADE)
async def put_session(
    company: Company, asking: Administering, response: Response, body: StartSession | None = None
) -> Session:
    return Session(**await _start(asking, company, body, response))


@router.get("/{company}", summary="One session")
async def get_session(company: Company, asking: Reading) -> Session:
    return _shown(asking, await asking.call("session.status", company=company))


@router.patch("/{company}", summary="Set a session's limits")
async def configure_session(
    company: Company, body: ConfigureSession, asking: Administering
) -> Configured:
    # A null that was sent means the default; one that was not sent means no change. The link
    # leaves None out, so this call goes round it.
    changes = body.model_dump(include=body.model_fields_set)
    return Configured(
        **await asking.link.request(
            "session.configure", {"company": company, **changes}, actor=asking.identity.actor
        )
    )


@router.delete("/{company}", summary="Unlink, stop, and delete what is kept", status_code=204)
async def remove_session(
    company: Company,
    asking: Administering,
    force: Annotated[
        bool, Query(description="Also if WhatsApp cannot be told of the unlinking.")
    ] = False,
) -> None:
    await asking.call("session.remove", company=company, force=force)


@router.post("/{company}/start", summary="Start a session that exists")
async def start_session(
    company: Company, asking: Administering, body: StartSession | None = None
) -> Session:
    await asking.call("session.status", company=company)  # 404 rather than a new company
    return Session(**await asking.call("session.start", company=company, **_wishes(body)))


@router.post("/{company}/stop", summary="Stop a session; it stays linked")
async def stop_session(company: Company, asking: Administering) -> Session:
    return Session(**await asking.call("session.stop", company=company))


@router.post("/{company}/restart", summary="Stop a session, and start it with a new worker")
async def restart_session(company: Company, asking: Administering) -> Session:
    return Session(**await asking.call("session.restart", company=company))


@router.post("/{company}/logout", summary="Unlink the device at WhatsApp")
async def log_out_session(company: Company, asking: Administering) -> Session:
    return Session(**await asking.call("session.logout", company=company))


@router.get(
    "/{company}/qr",
    summary="The QR code to scan now",
    response_model=QrCode,
    responses={
        200: {
            "content": {
                "text/plain": {"schema": {"type": "string"}},
                "image/png": {"schema": {"type": "string", "format": "binary"}},
                "image/svg+xml": {"schema": {"type": "string"}},
            }
        }
    },
)
async def get_qr(
    company: Company,
    asking: Administering,
    request: Request,
    response: Response,
    form: Annotated[
        Literal["json", "text", "png", "svg"] | None,
        Query(alias="format", description="Rather than by the Accept header."),
    ] = None,
) -> Any:
    """JSON, or the code as text, PNG or SVG, by `format` or by the Accept header.

    Whoever scans it owns the account's messages, so it takes the scope `admin`. While no code is
    shown the answer is 409, and says in which state the session is.
    """
    found = await asking.call("session.qr", company=company)
    chosen = chosen_format(form, request.headers.get("accept", ""))
    if chosen == "json":
        response.headers.update(_FRESH)
        return QrCode(**found)
    content = found["qr"].encode() if chosen == "text" else image(found["qr"], chosen)
    return Response(content, media_type=FORMATS[chosen], headers=_FRESH)


@router.get("/{company}/pairing", summary="How far linking is")
async def get_pairing(company: Company, asking: Administering, response: Response) -> Pairing:
    response.headers.update(_FRESH)
    status = await asking.call("session.status", company=company)
    return Pairing(**{**status, "linked": status["jid"] is not None})
