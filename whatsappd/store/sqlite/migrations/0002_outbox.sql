-- `id` is time and chance and grows with each row, so the table is in the order of acceptance.
CREATE TABLE outbox (
    id            INTEGER PRIMARY KEY,
    company       TEXT NOT NULL,
    chat          TEXT NOT NULL,
    text          TEXT NOT NULL,
    key           TEXT,
    state         TEXT NOT NULL,
    reason        TEXT,
    attempts      INTEGER NOT NULL,
    not_before_ms INTEGER NOT NULL,   -- above 0 only while queued
    expires_ms    INTEGER,
    on_uncertain  TEXT NOT NULL,
    message_id    TEXT,
    created_ms    INTEGER NOT NULL,
    updated_ms    INTEGER NOT NULL,
    sent_ms       INTEGER,
    handed_ms     INTEGER,
    lost_attempts INTEGER NOT NULL,
    secret        BLOB                -- of the last attempt; see store/outbox.py
);

CREATE UNIQUE INDEX outbox_key ON outbox (company, key) WHERE key IS NOT NULL;
CREATE INDEX outbox_state ON outbox (company, state, id);
CREATE INDEX outbox_message ON outbox (company, message_id) WHERE message_id IS NOT NULL;
CREATE INDEX outbox_handed ON outbox (company, handed_ms) WHERE handed_ms IS NOT NULL;
CREATE INDEX outbox_postponed ON outbox (company, not_before_ms) WHERE not_before_ms > 0;
CREATE INDEX outbox_expiry ON outbox (expires_ms)
    WHERE state = 'queued' AND expires_ms IS NOT NULL;

-- Receipts of messages that no row knows (yet): the best one each. They wait a while for the ack.
CREATE TABLE receipts (
    company     TEXT NOT NULL,
    message_id  TEXT NOT NULL,
    cause       TEXT NOT NULL,        -- delivered, read, played
    time_ms     INTEGER NOT NULL,
    received_ms INTEGER NOT NULL,
    PRIMARY KEY (company, message_id)
) WITHOUT ROWID;
CREATE INDEX receipts_received ON receipts (received_ms);
