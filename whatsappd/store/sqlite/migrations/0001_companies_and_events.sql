-- 0x77617064 is "wapd": lets `file` and `whatsappd check` tell the database from any other.
PRAGMA application_id = 2002874468;

CREATE TABLE companies (
    company           TEXT PRIMARY KEY,
    wanted            INTEGER NOT NULL,             -- 1: should be running, also after a reboot
    created_ms        INTEGER NOT NULL,
    settings          TEXT NOT NULL DEFAULT '{}',   -- JSON: what `session.configure` set
    jid               TEXT,
    lid               TEXT,
    push_name         TEXT,
    last_connected_ms INTEGER
) WITHOUT ROWID;

-- `packed` is the whole event as MessagePack, as subscribers get it: a replay encodes nothing.
-- `position` counts the packed bytes of all events before this one, deleted ones included, so
-- that the size of the log is a subtraction and not a scan.
CREATE TABLE events (
    seq      INTEGER PRIMARY KEY,
    time_ms  INTEGER NOT NULL,
    company  TEXT NOT NULL,
    type     TEXT NOT NULL,
    position INTEGER NOT NULL,
    packed   BLOB NOT NULL
);

-- One row. Every event up to and including `forgotten_seq` was deleted by retention.
CREATE TABLE event_log (
    one           INTEGER PRIMARY KEY CHECK (one = 1),
    forgotten_seq INTEGER NOT NULL,
    forgotten_end INTEGER NOT NULL   -- the position behind the last forgotten event
);
INSERT INTO event_log VALUES (1, 0, 0);

CREATE TABLE consumers (
    name       TEXT PRIMARY KEY,
    cursor     INTEGER NOT NULL,     -- the seq of the last acknowledged event
    created_ms INTEGER NOT NULL,
    acked_ms   INTEGER NOT NULL
) WITHOUT ROWID;
