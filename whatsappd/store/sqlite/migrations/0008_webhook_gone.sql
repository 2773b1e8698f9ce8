-- Events of the log that retention deleted before this webhook came to them, of all kinds.
ALTER TABLE webhooks ADD COLUMN gone INTEGER NOT NULL DEFAULT 0;
