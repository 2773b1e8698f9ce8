"""The server of the sandbox: accepts clients, logs them in, and answers each kind of stanza."""
