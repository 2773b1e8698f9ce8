"""QR codes in the form that a caller asked for."""

from __future__ import annotations

from io import BytesIO

import segno

#: Media types of the code, by the name for `?format=`.
FORMATS = {
    "json": "application/json",
    "text": "text/plain",
    "png": "image/png",
    "svg": "image/svg+xml",
}


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
