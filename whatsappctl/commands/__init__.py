"""The verbs of `whatsappctl`, one module each with a click command named `command`."""
