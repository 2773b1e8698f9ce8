"""`whatsappctl logout`."""

from whatsappctl.commands._session_verb import session_verb

command = session_verb(
    "logout",
    """Unlink COMPANY's session from its phone.

    The device disappears from the phone's list of linked devices, and the next
    `whatsappctl start` shows a QR code. What is stored for the company stays, but another
    company may be linked with the number now.

    A session that is held, because it was linked with another number than the company's, is
    unlinked from that one.
    """,
)
