"""Supervision: the fork server, worker processes, one company's session, and the pool of all."""
