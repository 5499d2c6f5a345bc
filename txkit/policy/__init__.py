"""What should happen: tables and rules without I/O.

Nothing in here may import asyncio, SQLAlchemy or the rest of txkit; the
import contracts in setup.cfg hold that.
"""
