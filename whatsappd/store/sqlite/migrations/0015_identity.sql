-- Who is who: see store/aliases.py. An address that WhatsApp (or a message) named the account of,
-- where that is another one: a spelling of a phone number, or a person's LID.
CREATE TABLE aliases (
    company    TEXT NOT NULL,
    address    TEXT NOT NULL,
    account    TEXT NOT NULL,
    checked_ms INTEGER NOT NULL,    -- when that was said last
    PRIMARY KEY (company, address)
) WITHOUT ROWID;
CREATE INDEX aliases_account ON aliases (company, account);

-- `chat` is the account that a message goes to. `asked` is what the sender named, where that is
-- another address. `is_reply`: the recipient wrote lately, so it goes before the others.
-- `former_message_id`: the id of the message that a device could not read, before it was sent anew.
ALTER TABLE outbox ADD COLUMN asked TEXT;
ALTER TABLE outbox ADD COLUMN is_reply INTEGER NOT NULL DEFAULT 0;
ALTER TABLE outbox ADD COLUMN former_message_id TEXT;
CREATE INDEX outbox_replies ON outbox (company, id) WHERE state = 'queued' AND is_reply = 1;
CREATE INDEX outbox_open_chat ON outbox (company, chat)
    WHERE state IN ('queued', 'sending', 'uncertain');
CREATE INDEX outbox_former ON outbox (company, former_message_id) WHERE former_message_id IS NOT NULL;

-- When they last wrote to the company (epoch milliseconds); 0: never, or before this column.
ALTER TABLE contacts ADD COLUMN wrote_ms INTEGER NOT NULL DEFAULT 0;
-- The contacts of an account that the company was linked with before: they come back with it.
CREATE TABLE former_contacts (
    company  TEXT NOT NULL,
    account  TEXT NOT NULL,
    chat     TEXT NOT NULL,
    since_ms INTEGER NOT NULL,
    wrote_ms INTEGER NOT NULL,
    PRIMARY KEY (company, account, chat)
) WITHOUT ROWID;

-- The account that a company is bound to, without a device: see rules/account_binding.py. `claimed`: no
-- other company may use it.
ALTER TABLE companies ADD COLUMN account TEXT;
ALTER TABLE companies ADD COLUMN account_lid TEXT;
ALTER TABLE companies ADD COLUMN claimed INTEGER NOT NULL DEFAULT 0;
UPDATE companies SET
    account = substr(jid, 1, instr(replace(jid, '@', ':'), ':') - 1) || substr(jid, instr(jid, '@')),
    claimed = 1
    WHERE jid LIKE '_%@%';
UPDATE companies SET
    account_lid = substr(lid, 1, instr(replace(lid, '@', ':'), ':') - 1)
        || substr(lid, instr(lid, '@'))
    WHERE account IS NOT NULL AND lid LIKE '_%@%';
-- Where several companies were linked with one account, the oldest keeps it.
UPDATE companies SET account = NULL, account_lid = NULL, claimed = 0
    WHERE EXISTS (
        SELECT 1 FROM companies AS older
        WHERE (older.account = companies.account OR older.account_lid = companies.account_lid)
            AND older.claimed = 1
            AND (older.created_ms, older.company) < (companies.created_ms, companies.company)
    );
CREATE UNIQUE INDEX companies_account ON companies (account) WHERE claimed = 1;
CREATE UNIQUE INDEX companies_account_lid ON companies (account_lid)
    WHERE claimed = 1 AND account_lid IS NOT NULL;
