"""Decisions, pure: time and chance are arguments, nothing here waits or touches the world."""
