-- Companies that are being removed: they are none any more, and what is left of them goes, if the
-- daemon is killed meanwhile after its next start (store/removal.py).
CREATE TABLE removals (
    company  TEXT PRIMARY KEY,
    since_ms INTEGER NOT NULL
) WITHOUT ROWID;
