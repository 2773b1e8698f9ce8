"""How often may be sent: one interface, kept in memory or shared through Redis."""
