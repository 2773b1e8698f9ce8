"""All targets."""

from __future__ import annotations

import input_targets
import sandbox_targets
import wire_targets

TARGETS = [*wire_targets.TARGETS, *sandbox_targets.TARGETS, *input_targets.TARGETS]
