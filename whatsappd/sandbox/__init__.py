"""A loopback WhatsApp: a server that speaks the real protocol to real, unmodified clients.

Everything above the socket is here: TLS, WebSocket, Noise, binary stanzas, pairing, prekeys,
messages, receipts, the offline queue, and faults on demand. `server.Sandbox` is the face of it.
The package imports nothing of the daemon but `errors`, `model` and `wire`; this module imports
nothing at all, because `trust` (inside workers) and `dictionary` (a short-lived process) must
start fast.
"""
