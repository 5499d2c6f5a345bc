"""One page of usage, a file for each way to work with the context's session.

Run any of them, for example ``python -m samples.usage.basic``; set
TXKIT_SAMPLE_URL to run it on PostgreSQL. Each prints what a second connection
sees. Start with ``basic``.
"""
