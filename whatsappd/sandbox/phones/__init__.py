"""The virtual phones: they scan QR codes, and are device 0 of their accounts."""
