-- Packed bytes of a webhook's dead letters: see DEAD_LETTER_BYTES in rules/bounds.py. Kept by
-- triggers, as letters go in many ways: sent again, discarded, with their webhook or their company.
ALTER TABLE webhooks ADD COLUMN dead_bytes INTEGER NOT NULL DEFAULT 0;
UPDATE webhooks SET dead_bytes = coalesce(
    (SELECT sum(length(event)) FROM webhook_dead_letters WHERE webhook = webhooks.id), 0);
CREATE TRIGGER webhook_dead_letter_came AFTER INSERT ON webhook_dead_letters BEGIN
    UPDATE webhooks SET dead_bytes = dead_bytes + length(new.event) WHERE id = new.webhook;
END;
CREATE TRIGGER webhook_dead_letter_went AFTER DELETE ON webhook_dead_letters BEGIN
    UPDATE webhooks SET dead_bytes = dead_bytes - length(old.event) WHERE id = old.webhook;
END;
