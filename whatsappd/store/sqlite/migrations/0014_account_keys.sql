-- Until here, what a phone tells its linked devices was logged like a message: with the keys of the
-- account's app state, and with those of its history. Such an event keeps its number, its place and
-- what else it says; `raw`, which held the keys, goes. Of other messages' `raw`, only the keys that
-- clients exchange go. (without_keys: store/old_keys.py. x'a3726177' is the name "raw", packed.)
UPDATE events SET packed = without_keys(packed)
    WHERE type = 'message.received' AND instr(packed, x'a3726177') > 0
    AND packed IS NOT without_keys(packed);
UPDATE webhook_dead_letters SET event = without_keys(event)
    WHERE type = 'message.received' AND instr(event, x'a3726177') > 0
    AND event IS NOT without_keys(event);

UPDATE event_totals SET bytes = (
    SELECT coalesce(sum(length(packed)), 0) FROM events, event_log
    WHERE events.company = event_totals.company AND events.type = event_totals.type
    AND seq <= counted_seq
) WHERE type = 'message.received';

-- What was deleted earlier still lies in pages that are free now. `store.sqlite.connect` has the file
-- written anew, and empties this table when that is done: a full disk postpones it.
CREATE TABLE erasures_due (what TEXT PRIMARY KEY) WITHOUT ROWID;
INSERT INTO erasures_due SELECT 'account keys'
    WHERE EXISTS (SELECT 1 FROM events) OR EXISTS (SELECT 1 FROM webhook_dead_letters)
    OR EXISTS (SELECT 1 FROM forgotten_events);
