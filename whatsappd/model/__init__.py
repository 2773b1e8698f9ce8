"""The values that all parts use: company ids, JIDs, messages, events, session status."""
