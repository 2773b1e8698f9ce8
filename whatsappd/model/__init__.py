"""What things are: company ids, JIDs, messages, events, session status. Pure values only."""
