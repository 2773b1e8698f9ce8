-- Who sent a message (model/message.py), for the bounds of each sender; NULL: root, the daemon's own
-- user, or from before this column.
ALTER TABLE outbox ADD COLUMN owner TEXT;
