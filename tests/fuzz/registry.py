"""All targets."""

from __future__ import annotations

import answer_targets
import company_targets
import input_targets
import live_targets
import sandbox_targets
import wire_targets

TARGETS = [
    *wire_targets.TARGETS,
    *answer_targets.TARGETS,
    *sandbox_targets.TARGETS,
    *input_targets.TARGETS,
    *live_targets.TARGETS,
    *company_targets.TARGETS,
]
