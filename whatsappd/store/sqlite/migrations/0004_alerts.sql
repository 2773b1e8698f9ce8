-- Alerts that were raised and not cleared: a restart must not raise them again. The history of
-- alerts is in the event log.
CREATE TABLE open_alerts (
    rule     TEXT NOT NULL,
    company  TEXT NOT NULL,     -- '' for the daemon and its host
    since_ms INTEGER NOT NULL,  -- when the condition began
    detail   TEXT NOT NULL,     -- as it was raised
    PRIMARY KEY (rule, company)
) WITHOUT ROWID;
