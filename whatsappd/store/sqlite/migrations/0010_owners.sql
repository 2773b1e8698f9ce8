-- Consumers belong to whoever makes them (model/consumer.py). Those that there are, everybody used
-- who might do everything: their places are handed on to each of them who comes again.
CREATE TABLE shared_consumers (name TEXT PRIMARY KEY) WITHOUT ROWID;
INSERT INTO shared_consumers SELECT name FROM consumers
    WHERE name NOT GLOB 'key:*:*' AND name NOT GLOB 'uid:*:*' AND name NOT GLOB 'webhook:*';
