"""The ledger's services behind web frameworks and a queue: a front for each, none with middleware.

messages.py     what comes in and goes out, and how a refusal is answered; no framework's
fastapi_app.py  uvicorn --factory samples.ledger.fronts.fastapi_app:create_app
litestar_app.py uvicorn --factory samples.ledger.fronts.litestar_app:create_app
aiohttp_app.py  python -m aiohttp.web samples.ledger.fronts.aiohttp_app:create_app
worker.py       python -m samples.ledger.fronts.worker

Each front names the framework, and what it does the framework's way; what it does
is one call of a service. LEDGER_URL says which database. The command line, the fifth
front, is ``samples.ledger.cli``.
"""
