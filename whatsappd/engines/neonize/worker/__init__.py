"""The child processes: neonize, and nothing of the daemon.

`engines.neonize.fork.server` forks a worker; `main` is the body of a worker; `client` is the only
module that uses neonize's Python classes. How the Go library is loaded is in `fork.preload`.
"""
