-- Which boot of the host the last attempt was made under (`boot_id` in clock.py): a host that went
-- down may have taken the account database's last writes along, so a message that is missing there
-- proves nothing then. NULL: unknown, or from before this column, and counts as another boot.
ALTER TABLE outbox ADD COLUMN boot_id TEXT;
