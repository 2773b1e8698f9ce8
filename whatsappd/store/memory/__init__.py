"""The store in memory: a twin of the one on disk, for tests. Nothing outlives it."""
