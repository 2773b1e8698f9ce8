"""The log of a process: its set-up, the thread that writes it, and its settings."""
