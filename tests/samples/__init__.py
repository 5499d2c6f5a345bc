"""Every sample is run, and judged by a second connection."""
