"""The store in one SQLite database: outbox, event log, companies, keys, webhooks."""
