"""What is happening now: the context, its sessions, and the boundaries. Private."""
