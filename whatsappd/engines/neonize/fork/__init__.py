"""The fork server's process: neonize imported without its Go library, ready to be forked."""
