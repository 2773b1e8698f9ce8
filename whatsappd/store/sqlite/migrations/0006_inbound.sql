-- How far each company's inbound events were taken: workers number them, and a worker that outlived
-- its daemon leaves what may not have arrived to the next one.
CREATE TABLE inbound (
    company TEXT PRIMARY KEY,
    taken   INTEGER NOT NULL    -- the number of the last event that is in the log
) WITHOUT ROWID;
