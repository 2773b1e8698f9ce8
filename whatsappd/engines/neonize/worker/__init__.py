"""The child processes: neonize, and nothing of the daemon.

`forkserver` is started by the daemon and forks workers; `main` is the body of a worker; `client`
is the only module that knows neonize's Python face, and `preload` the only one that knows how its
Go library is loaded.
"""
