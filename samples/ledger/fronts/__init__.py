"""The ledger's services behind web frameworks and a queue: a front for each, none with middleware.

messages.py     what comes in and goes out, and how a refusal is answered; no framework's
fastapi_app.py  uvicorn --factory samples.ledger.fronts.fastapi_app:create_app
litestar_app.py uvicorn --factory samples.ledger.fronts.litestar_app:create_app
aiohttp_app.py  python -m aiohttp.web samples.ledger.fronts.aiohttp_app:create_app
worker.py       python -m samples.ledger.fronts.worker

A handler calls a service; what is around it is the framework's own way of doing it.
LEDGER_URL says which database. The fifth front is the command line, ``samples.ledger.cli``.
"""
