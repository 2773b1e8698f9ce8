"""What the sandbox knows: accounts, groups, undelivered stanzas, armed faults, statistics."""
