"""The test suite; ``python -m tests`` installs what it needs and runs it."""
