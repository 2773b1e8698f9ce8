"""Types that parameters share, with the checks that every door needs."""

from __future__ import annotations

from typing import Annotated

import msgspec

#: A company id; `model.company.validate_company` words the complaint.
CompanyId = Annotated[str, msgspec.Meta(max_length=200)]

MAX_KEY = 200


class Params(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Base of all parameter structs."""


class OneCompany(Params):
    company: CompanyId
