"""What txkit costs beside hand-written SQLAlchemy: ``python -m tests.benchmarks``."""
