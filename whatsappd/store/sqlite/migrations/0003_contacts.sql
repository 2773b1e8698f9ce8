-- People (and groups) with whom a company has exchanged a message: writing to anybody else is
-- outreach, which has a smaller budget. Both identities of a person are kept where known.
CREATE TABLE contacts (
    company   TEXT NOT NULL,
    chat      TEXT NOT NULL,
    since_ms  INTEGER NOT NULL,
    PRIMARY KEY (company, chat)
) WITHOUT ROWID;

-- What was sent before this table existed.
INSERT OR IGNORE INTO contacts (company, chat, since_ms)
    SELECT company, chat, min(sent_ms) FROM outbox WHERE sent_ms IS NOT NULL GROUP BY company, chat;
