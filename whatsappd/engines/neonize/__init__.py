"""All that knows neonize and whatsmeow; `fork` and `worker` run in processes of their own."""
