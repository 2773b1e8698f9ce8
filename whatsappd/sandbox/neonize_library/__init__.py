"""What the sandbox reads from, and replaces in, the memory of neonize's loaded Go library."""
