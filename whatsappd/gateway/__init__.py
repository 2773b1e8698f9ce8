"""The gateway: REST, WebSocket, server-sent events, webhooks and a web page, over HTTP.

It is a process of its own, and a client of the daemon's Unix socket.

It can be restarted, sandboxed and killed without touching a session, keeps no state, and imports
nothing of the daemon but what can be asked of it (`api`) and the client's end of the socket. `run`
puts it together; a request passes

    listener      connections are counted, and cut when they read nothing
    connection    HTTP/1.1, and `websocket` where a request asks for one
    admission     who is it, is there room, is the request of a sane size; errors become problems
    routing       which route is it; its path, query and body become typed structures
    messages, sessions, events, webhooks, monitoring, documentation, page    the routes
    daemon_link   the shared connection to the daemon, which comes back by itself

`openapi` makes the OpenAPI document of the routes. Beside the requests, `webhooks.deliverer` reads
the log and delivers it.
"""
