"""The contract can fail: an application that commits after its response is caught."""

from __future__ import annotations

from collections.abc import AsyncIterator

from fastapi import Depends, FastAPI

from tests.conftest import PostgresJudge
from tests.frameworks.asgi import asgi_server
from tests.frameworks.web import SLOW_COMMIT, Services, front_of, services
from txkit import transactional

__all__ = ["services"]


async def test_commit_after_the_response_is_caught(services: Services, pg: PostgresJudge) -> None:
    async def unit() -> AsyncIterator[None]:
        async with transactional():
            yield

    app = FastAPI()

    @app.post("/notes/{text}", dependencies=[Depends(unit)])
    async def post_note(text: str) -> None:
        await services.write(text)

    await pg.connection.execute(SLOW_COMMIT)
    async with asgi_server(app) as port, front_of(port, services, pg) as front:
        assert await front.texts_at_first_byte("/notes/late") == []
        await front.quiet()
        assert await front.texts() == ["late"]
