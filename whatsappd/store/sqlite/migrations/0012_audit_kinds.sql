-- Lines of the audit trail have a kind (store/audit.py: 0 change, 1 message, 2 failure), each with a
-- budget of its own, and may stand for several like calls.
ALTER TABLE audit ADD COLUMN times INTEGER NOT NULL DEFAULT 1;
ALTER TABLE audit ADD COLUMN kind INTEGER NOT NULL DEFAULT 0;
UPDATE audit SET kind = CASE WHEN outcome NOT IN ('ok', 'interrupted') THEN 2
    WHEN method LIKE 'message.%' THEN 1 ELSE 0 END;
CREATE INDEX audit_kind ON audit (kind, id);
-- Who made a webhook; NULL: root, the daemon's own user, or nobody knows any more.
ALTER TABLE webhooks ADD COLUMN owner TEXT;
