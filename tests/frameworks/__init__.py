"""Handlers of every framework, decorated directly: what commits, and when."""
