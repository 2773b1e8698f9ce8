"""What must survive: contracts (`port`), their implementations, and what these share."""
