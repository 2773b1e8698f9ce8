"""`/`, the files it needs, and the guides below `/manual/`. They hold no data: no key is needed."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from importlib import resources
from typing import NamedTuple, TypeVar

from whatsappd.api.declaration import NoParams
from whatsappd.gateway.answers import HTML, HttpAnswer
from whatsappd.gateway.page import guides
from whatsappd.gateway.problem_details import HttpError
from whatsappd.gateway.requests import RoutedRequest
from whatsappd.gateway.routing import Possible, Routes

routes = Routes("page", is_documented=False)

Nothing = RoutedRequest[NoParams, NoParams]
A = TypeVar("A", bound=Callable[..., Awaitable[HttpAnswer]])

#: Nothing but our own files runs or is asked; nothing may frame the page (clickjacking). QR codes
#: are fetched with the key, and shown from memory: blob.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_TYPES = {
    "html": HTML,
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    # RoutedRequest for each time, and answered 304: after an upgrade nobody runs the old page.
    "cache-control": "no-cache",
}


class _PageFile(NamedTuple):
    content: bytes
    media_type: str
    etag: str


def _load() -> dict[str, _PageFile]:
    files = {}
    for entry in resources.files(__package__).iterdir():
        media_type = _TYPES.get(entry.name.rpartition(".")[2])
        if media_type is not None:
            content = entry.read_bytes()
            etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
            files[entry.name] = _PageFile(content, media_type, etag)
    return files


_FILES = _load()


def _answer(asked: Nothing, name: str) -> HttpAnswer:
    file = _FILES.get(name)
    if file is None:
        raise _no_such_path()
    headers = {**_HEADERS, "etag": file.etag}
    if asked.request.headers.get("if-none-match") == file.etag:
        return HttpAnswer(status=304, headers=headers)
    return HttpAnswer(file.content, media_type=file.media_type, headers=headers)


def _no_such_path() -> HttpError:
    return HttpError(404, "no_such_path", "Not Found")


def _public(path: str) -> Callable[[A], A]:
    return routes.route("GET", path, "", scope=None, answers={200: Possible()})


@_public("/")
async def get_page(asked: Nothing) -> HttpAnswer:
    return _answer(asked, "index.html")


@_public("/page/{name}")
async def get_file(asked: Nothing) -> HttpAnswer:
    return _answer(asked, asked.path["name"])


@_public("/manual")
async def get_manual(_asked: Nothing) -> HttpAnswer:
    # Relative: a proxy may have all of it below a path of its own.
    return HttpAnswer(status=308, headers={"location": "manual/"})


@_public("/manual/")
@_public("/manual/{topic}")
async def get_guide(asked: Nothing) -> HttpAnswer:
    page = guides.guide_page(asked.path.get("topic", ""))
    if page is None:
        raise _no_such_path()
    headers = {**_HEADERS, "content-security-policy": guides.CONTENT_SECURITY_POLICY}
    return HttpAnswer(page.encode(), media_type=HTML, headers=headers)
