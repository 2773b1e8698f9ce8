"""What must survive: one SQLite database with the outbox, the event log and the companies."""
