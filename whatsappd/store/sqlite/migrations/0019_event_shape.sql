-- Messages and receipts were logged with one JID each for chat and sender, and with the name of a
-- protobuf field for what a message says. Now persons have both identities, and contents a kind:
-- readers of the log meet one shape. (in_todays_shape: store/sqlite/older_events.py.)
UPDATE events SET packed = in_todays_shape(packed)
    WHERE type IN ('message.received', 'message.receipt', 'message.undecryptable',
                   'message.unreadable');
UPDATE webhook_dead_letters SET event = in_todays_shape(event)
    WHERE type IN ('message.received', 'message.receipt', 'message.undecryptable',
                   'message.unreadable');

UPDATE event_totals SET bytes = (
    SELECT coalesce(sum(length(packed)), 0) FROM events, event_log
    WHERE events.company = event_totals.company AND events.type = event_totals.type
    AND seq <= counted_seq
) WHERE type LIKE 'message.%';
UPDATE webhooks SET dead_bytes = coalesce(
    (SELECT sum(length(event)) FROM webhook_dead_letters WHERE webhook = webhooks.id), 0);
