"""The handlers of the API's methods in the daemon: one file per noun, and the access control."""
