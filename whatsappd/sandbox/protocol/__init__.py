"""WhatsApp's wire formats, which know nothing of the sandbox: Noise, frames, stanzas, ADV."""
