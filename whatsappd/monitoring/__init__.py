"""Health checks, alerts and metrics of the daemon.

It reads the objects of the daemon's other parts. `handlers.monitoring` and `app` use it.
"""
