"""What can be asked of the daemon, free of transport: one module per noun, one table of methods."""
