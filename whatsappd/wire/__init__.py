"""Bytes to messages and back, free of sockets: frames, RPC, and the worker's protocol."""
