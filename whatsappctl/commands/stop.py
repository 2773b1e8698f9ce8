"""`whatsappctl stop`."""

from whatsappctl.commands._session_verb import session_verb

command = session_verb(
    "stop",
    """Stop COMPANY's session.

    It stays linked to its phone, and stopped until `whatsappctl start`, also when the daemon
    restarts. Messages that wait to be sent go on waiting.
    """,
)
