-- Webhooks: see store/webhooks.py. How far each is, is the cursor of the consumer webhook:ID.
CREATE TABLE webhooks (
    id               TEXT PRIMARY KEY,
    revision         INTEGER NOT NULL,    -- grows with each change of the configuration
    url              TEXT NOT NULL,
    companies        TEXT,                -- JSON array; NULL: all
    types            TEXT,                -- JSON array; NULL: all
    description      TEXT NOT NULL,
    allow_private    INTEGER NOT NULL,    -- 1: addresses that are not on the Internet, too
    enabled          INTEGER NOT NULL,
    secret           TEXT NOT NULL,       -- as it is: signing takes the secret itself
    created_ms       INTEGER NOT NULL,
    updated_ms       INTEGER NOT NULL,
    delivered        INTEGER NOT NULL DEFAULT 0,
    failures         INTEGER NOT NULL DEFAULT 0,   -- attempts that failed
    last_success_ms  INTEGER,
    failing_since_ms INTEGER,             -- the first failure since the last success
    paused_since_ms  INTEGER,
    last_error       TEXT
) WITHOUT ROWID;

-- Events that a receiver refused while it accepted others. Copies, which outlive the event log.
CREATE TABLE webhook_dead_letters (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    webhook  TEXT NOT NULL,
    seq      INTEGER NOT NULL,
    time_ms  INTEGER NOT NULL,            -- the event's
    company  TEXT NOT NULL,
    type     TEXT NOT NULL,
    dead_ms  INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    reason   TEXT NOT NULL,
    resend   INTEGER NOT NULL DEFAULT 0,  -- 1: somebody asked for one more attempt
    event    BLOB NOT NULL,               -- packed
    UNIQUE (webhook, seq)
);
CREATE INDEX webhook_resends ON webhook_dead_letters (webhook, id) WHERE resend = 1;
