"""A small double-entry ledger: one set of decorated services behind five fronts.

orders.py     what somebody wants moved, checked; and the ways to be refused
tables.py     accounts, transfers, postings, attempts; how they are made
services.py   what can be done with them, each a unit: the heart of the sample
books.py      reads everything back and says whether it balances
database.py   where it lives
csvfile.py    a CSV file as a stream of orders
importing.py  each line a unit of its own
printing.py   what the command line prints
cli.py        python -m samples.ledger: the first front
fronts/       the same services behind FastAPI, Litestar, aiohttp and a queue
"""
