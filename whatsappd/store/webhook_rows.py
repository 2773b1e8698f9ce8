"""What every store of webhooks shares: their ids and secrets, and the bounds on them."""

from __future__ import annotations

import base64
import secrets
import string

from whatsappd.errors import UnknownDeadLetter
from whatsappd.model.consumer import WEBHOOK
from whatsappd.rules.bounds import WEBHOOKS, Holder, check_room

#: Secrets begin with it (Standard Webhooks); behind it 32 random bytes in base64.
SECRET_PREFIX = "whsec_"  # noqa: S105 - a secret's mark, not one
#: Characters of a refusal's reason that are kept.
MAX_REASON = 500

_ALPHABET = string.ascii_lowercase + string.digits


def new_id() -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(8))


def new_secret() -> str:
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def consumer_name(identity: str) -> str:
    """The name of the webhook's cursor among the consumers."""
    return WEBHOOK + identity


def check_webhooks(owner: str | None, held: int, total: int) -> None:
    """Whether `owner`, who has `held` of `total` webhooks, may have one more.

    Raises InvalidParams.
    """
    is_ours = owner is None
    holder = Holder(owner or "uid:0", is_capped=not is_ours, may_use_kept=is_ours)
    check_room(WEBHOOKS, holder, held, total)


def unknown_letter(webhook: str, letter: int) -> UnknownDeadLetter:
    return UnknownDeadLetter(
        f"the webhook {webhook} has no dead letter {letter}: "
        f"`whatsappctl webhooks dead {webhook}` shows them",
        id=webhook,
        letter=letter,
    )
