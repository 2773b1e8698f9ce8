"""What runs WhatsApp accounts for the daemon: the protocol of workers, and their processes."""
