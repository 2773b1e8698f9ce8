"""What answers the API's calls in the daemon: one file per noun, and who may call what."""
