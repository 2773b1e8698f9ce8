"""WhatsApp's wire formats, pure and sans-IO: WebSocket, Noise, frames, stanzas, signatures, ADV.

Nothing here opens a file or a socket, and nothing knows of the sandbox.
"""
