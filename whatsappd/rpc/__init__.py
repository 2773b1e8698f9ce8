"""MessagePack-RPC over a Unix socket; knows nothing of WhatsApp.

`method` describes what can be called, `listener` makes the socket, `server` and `connection`
serve a table of methods on it, `peer` says who calls, and `client` is the other end, for trio.
"""
