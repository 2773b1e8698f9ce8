"""Runs WhatsApp accounts for the daemon: the protocol with workers, and their processes."""
