"""MessagePack-RPC over a Unix socket; knows nothing of WhatsApp.

`method` describes what can be called. `listener` makes the socket, `server` accepts connections on
it; what their bytes mean is decided by `exchange`, which knows no event loop, and moved by
`server_connection`. `peer_credentials` says who calls, `user_shares` what each user may have, and
`client` is the other end, for trio.
"""
