"""`/`, the files it needs, and the guides below `/manual/`. They hold no data: no key is needed."""

from __future__ import annotations

import hashlib
from importlib import resources
from typing import NamedTuple

from fastapi import APIRouter, Request
from starlette.responses import Response

from whatsappd.gateway.page import guides
from whatsappd.gateway.problems import HttpError

router = APIRouter(include_in_schema=False)

#: Nothing but our own files runs or is asked; nothing may frame the page (clickjacking). QR codes
#: are fetched with the key, and shown from memory: blob.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    # Asked for each time, and answered 304: after an upgrade nobody runs the old page.
    "Cache-Control": "no-cache",
}


class _File(NamedTuple):
    content: bytes
    media_type: str
    etag: str


def _load() -> dict[str, _File]:
    files = {}
    for entry in resources.files(__package__).iterdir():
        media_type = _TYPES.get(entry.name.rpartition(".")[2])
        if media_type is not None:
            content = entry.read_bytes()
            etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
            files[entry.name] = _File(content, media_type, etag)
    return files


_FILES = _load()


def _answer(request: Request, name: str) -> Response:
    file = _FILES.get(name)
    if file is None:
        raise _no_such_path()
    headers = {**_HEADERS, "ETag": file.etag}
    if request.headers.get("if-none-match") == file.etag:
        return Response(status_code=304, headers=headers)
    return Response(file.content, media_type=file.media_type, headers=headers)


def _no_such_path() -> HttpError:
    return HttpError(404, "no_such_path", "Not Found")


@router.get("/")
async def get_page(request: Request) -> Response:
    return _answer(request, "index.html")


@router.get("/page/{name}")
async def get_file(request: Request, name: str) -> Response:
    return _answer(request, name)


@router.get("/manual")
async def get_manual() -> Response:
    # Relative: a proxy may have all of it below a path of its own.
    return Response(status_code=308, headers={"Location": "manual/"})


@router.get("/manual/")
@router.get("/manual/{topic}")
async def get_guide(topic: str = "") -> Response:
    page = guides.guide_page(topic)
    if page is None:
        raise _no_such_path()
    headers = {**_HEADERS, "Content-Security-Policy": guides.CONTENT_SECURITY_POLICY}
    return Response(page, media_type=_TYPES["html"], headers=headers)
