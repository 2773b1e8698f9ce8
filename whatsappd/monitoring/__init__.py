"""Watching the daemon: what is measured, whether all is well, and when somebody must be told.

Reads the live objects of the other rooms, and is read by `handlers.monitoring` and the composition
root.
"""
