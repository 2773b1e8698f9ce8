-- Retention is by company from here on: each company's oldest events go, and nobody else's.

-- How far each company's events were deleted. A reader behind `seq` has missed some of them.
-- company '*': events of companies that were removed, and what was deleted before this table.
CREATE TABLE forgotten_events (
    company TEXT PRIMARY KEY,
    seq     INTEGER NOT NULL,   -- every event of the company up to this one was deleted
    events  INTEGER NOT NULL    -- how many were
) WITHOUT ROWID;

-- How much is kept of each company and type, as of the event `event_log.counted_seq`.
CREATE TABLE event_totals (
    company TEXT NOT NULL,
    type    TEXT NOT NULL,
    events  INTEGER NOT NULL,
    bytes   INTEGER NOT NULL,   -- packed
    PRIMARY KEY (company, type)
) WITHOUT ROWID;

INSERT INTO forgotten_events SELECT '*', forgotten_seq, forgotten_seq FROM event_log
    WHERE forgotten_seq > 0;
INSERT INTO forgotten_events SELECT company, forgotten_seq, 0 FROM companies, event_log
    WHERE forgotten_seq > 0;
INSERT INTO event_totals SELECT company, type, count(*), sum(length(packed)) FROM events
    GROUP BY company, type;

ALTER TABLE event_log ADD COLUMN counted_seq INTEGER NOT NULL DEFAULT 0;
UPDATE event_log SET counted_seq = coalesce((SELECT max(seq) FROM events), forgotten_seq);
ALTER TABLE event_log DROP COLUMN forgotten_seq;
ALTER TABLE event_log DROP COLUMN forgotten_end;

-- Finds the oldest events of a company, and what a filter asks for, without looking at others.
CREATE INDEX events_of ON events (company, type, seq);

-- A page of one webhook's dead letters must not look at those of all others.
CREATE INDEX webhook_dead_letters_of ON webhook_dead_letters (webhook, id);
