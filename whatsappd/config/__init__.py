"""Settings: read from file, environment and command line, checked as a whole, explained."""
