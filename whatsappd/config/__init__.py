"""Settings: defined once, given by file, environment and command line, checked as a whole."""

from whatsappd.config.settings import Settings

__all__ = ["Settings"]
