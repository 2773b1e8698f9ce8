"""A loopback WhatsApp: a server that speaks the real protocol to real, unmodified clients.

`server.sandbox.Sandbox` runs it. The rooms, from the wire upwards; each knows only those above it
in this list (`tests/test_architecture.py` holds that):

- `protocol/`: WhatsApp's formats as pure functions and sans-IO classes. From the outside inwards:
  `websocket` (RFC 6455), `noise_frames` (length prefixes), `noise` (the handshake and the
  encryption), `stanza_codec` (compressed XML), `node` (one element of it); beside them `protobuf`,
  `xeddsa` (signatures) and `adv` (how a phone vouches for a linked device).
- `neonize_library/`: what the sandbox reads from, and replaces in, the memory of neonize's loaded
  Go library: the token dictionary and the Noise root key.
- `state/`: accounts, devices, groups, undelivered stanzas, armed faults, connected clients; what
  must survive a restart is in an SQLite file.
- `phones/`: the virtual phones. They scan QR codes, and are device 0 of their accounts.
- `server/`: sockets, TLS, logins, and one handler for each kind of stanza.

A client's way through it: `server.listener` accepts, `server.opening` answers proxy, TLS and HTTP,
`server.connection` feeds the bytes to `protocol.server_stream`, `server.login` reads who it is,
and `server.stanza_handlers` says which function answers which stanza.

This module imports nothing: workers (`neonize_library.noise_root`) must start fast.
"""
