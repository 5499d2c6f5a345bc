"""A web handler's answer counts: a status of 400 or more rolls back, and no middleware is there.

The decorator stands directly below the route. The application is called in this
process; under a server it behaves in the same way.
"""

from __future__ import annotations

import httpx
from fastapi import FastAPI, HTTPException
from fastapi.responses import JSONResponse, RedirectResponse

from samples.usage.database import insert_text, run, show
from txkit import transactional

app = FastAPI()


@app.post("/good")
@transactional
async def good() -> str:
    """Answer 200: COMMIT, before the response is sent."""
    await insert_text("good")
    return "done"


@app.post("/failing")
@transactional
async def failing() -> str:
    """Leave by an HTTP exception: ROLLBACK."""
    await insert_text("failing")
    raise HTTPException(status_code=500)


@app.post("/refusing")
@transactional
async def refusing() -> JSONResponse:
    """Return a response that says no: ROLLBACK."""
    await insert_text("refusing")
    return JSONResponse({"detail": "no"}, status_code=409)


@app.post("/moved")
@transactional
async def moved() -> RedirectResponse:
    """Redirect: that is no failure, COMMIT."""
    await insert_text("moved")
    return RedirectResponse("/good", status_code=303)


async def main() -> None:
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://sample") as client:
        for path in ("/good", "/failing", "/refusing", "/moved"):
            response = await client.post(path)
            await show(f"after {path} answered {response.status_code}")


if __name__ == "__main__":
    run(main)
