"""`whatsappctl restart`."""

from whatsappctl.commands._session_verb import session_verb

command = session_verb(
    "restart",
    """Stop COMPANY's session and start it again, with a new worker process.

    The account stays linked. The daemon restarts sessions in trouble by itself, so this is for
    the case that somebody knows better.
    """,
)
