"""REST, WebSocket and server-sent events: a process of its own, and a client of the Unix socket.

It can be restarted, sandboxed and killed without touching a session, keeps no state, and imports
nothing of the daemon but the client's end of the socket. `run` puts it together; a request passes

    listener   connections are counted, and cut when they read nothing
    door       who is it, may it come in, is the request of a sane size
    app        routes, `/v1/...` and the page; errors become problems
    link       the shared connection to the daemon, which comes back by itself

Beside the requests, `webhooks.deliverer` reads the log and delivers it.
"""
