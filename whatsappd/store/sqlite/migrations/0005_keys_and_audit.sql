-- API keys of the gateway: see store/keys.py for why a plain SHA-256 is enough.
CREATE TABLE api_keys (
    id           TEXT PRIMARY KEY,
    name         TEXT NOT NULL,
    scope        TEXT NOT NULL,        -- read, send, admin
    companies    TEXT,                 -- JSON array; NULL: all
    created_ms   INTEGER NOT NULL,
    last_used_ms INTEGER,
    digest       BLOB NOT NULL         -- SHA-256 of the whole key
) WITHOUT ROWID;

-- Who did what: see store/audit.py. Ids grow and are never given twice, so they are cursors.
CREATE TABLE audit (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    time_ms INTEGER NOT NULL,
    actor   TEXT NOT NULL,             -- uid:N, or what the gateway named (key:ID)
    pid     INTEGER NOT NULL,
    method  TEXT NOT NULL,
    company TEXT,
    subject TEXT,
    outcome TEXT NOT NULL              -- ok, or an error's name
);
CREATE INDEX audit_company ON audit (company, id) WHERE company IS NOT NULL;
CREATE INDEX audit_time ON audit (time_ms);
