"""Company ids: the names of tenants, which become directory names.

Ids are validated and never cleaned: a directory named by a "cleaned" id would let two tenants
meet. The alphabet excludes everything that a path, a URI (neonize pastes the database path into
one) or a shell would give a meaning to.
"""

from __future__ import annotations

import re
from typing import Any

from whatsappd.errors import InvalidParams

MAX_COMPANY_ID = 50
COMPANY_ID = re.compile(r"[A-Za-z0-9_-]{1,50}\Z")


def validate_company(value: Any, *, field: str = "company") -> str:
    """`value` if it is a company id.

    Raises:
        InvalidParams: it is not; the message names `field` and says what an id looks like.
    """
    if isinstance(value, str) and COMPANY_ID.match(value):
        return value
    raise InvalidParams(
        f"{field}: {value!r:.80} is no company id: use 1 to {MAX_COMPANY_ID} characters "
        "of A-Z, a-z, 0-9, '_' and '-'",
        field=field,
    )
