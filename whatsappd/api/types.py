"""Types of fields that several nouns share, with their bounds, descriptions and examples."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from whatsappd.api.declaration import Params

#: What a 64-bit column takes.
MAX_SEQ = 2**63 - 1

COMPANY_PATTERN = r"^[A-Za-z0-9_-]{1,50}$"
#: A company id. `model.company.validate_company` checks it, and words the complaint.
CompanyId = Annotated[
    str,
    Meta(
        description="The company's id.",
        examples=["acme"],
        extra_json_schema={"pattern": COMPANY_PATTERN, "maxLength": 50},
    ),
]
Seq = Annotated[int, Meta(ge=0, le=MAX_SEQ)]
#: Milliseconds since the epoch.
TimeMs = Annotated[int, Meta(description="Milliseconds since the epoch.")]


class OneCompany(Params):
    company: CompanyId
