"""Rate limits for sending: one contract; windows in memory, or shared through Redis."""
