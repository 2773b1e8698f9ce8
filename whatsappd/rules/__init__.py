"""Decisions as pure functions and values: time and chance are arguments, nothing does I/O."""
