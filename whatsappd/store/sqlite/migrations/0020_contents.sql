-- What a message says is a content of some kind, of which text is one. As JSON: plain SQL can make
-- it and look into it. `kind` is read from it, so that the two cannot differ.
UPDATE outbox SET text = json_object('kind', 'text', 'text', text);
ALTER TABLE outbox RENAME COLUMN text TO content;
ALTER TABLE outbox ADD COLUMN kind TEXT
    GENERATED ALWAYS AS (json_extract(content, '$.kind')) VIRTUAL;
