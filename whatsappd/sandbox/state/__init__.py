"""What the sandbox knows: accounts, groups, undelivered stanzas, faults, counters, clients.

`switchboard.Switchboard` holds it all; handlers get that. This room knows `protocol/` only.
"""
