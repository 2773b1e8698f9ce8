-- When the last of them was taken (epoch milliseconds): `status` shows it after a restart, too.
ALTER TABLE inbound ADD COLUMN time_ms INTEGER;
