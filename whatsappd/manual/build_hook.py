"""Gives the wheel the man pages: hatchling runs this when the package is built or installed.

They are written from the guides and from the commands' own help, so that nothing has to be kept in
step by hand. What that takes is in `pyproject.toml`, beside the hook.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ManPages(BuildHookInterface[Any]):
    """Installed below the environment's `share/man`, where `man` looks for those of its `bin`."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        sys.path.insert(0, self.root)
        from whatsappd.manual.man_pages import write_man_pages

        self._directory = tempfile.TemporaryDirectory(prefix="whatsappd-man-")
        write_man_pages(Path(self._directory.name))
        build_data["shared_data"][self._directory.name] = "share/man"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        self._directory.cleanup()
