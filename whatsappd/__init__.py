"""whatsappd: one daemon, the only owner of many WhatsApp sessions."""

__version__ = "0.1.0"
