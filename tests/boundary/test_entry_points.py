"""A request boundary is just another decorated entry function: FastAPI and click."""

from __future__ import annotations

import asyncio

import click
import httpx
import pytest
from click.testing import CliRunner
from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException, Response
from fastapi.responses import JSONResponse

from tests.conftest import Place
from tests.notes import count, metadata, write
from txkit import Database, db_session, transactional


def client(app: FastAPI) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://test")


@pytest.fixture
async def web(place: Place):
    app = FastAPI()

    def words(words: str = "posted") -> str:
        return words

    @transactional
    async def in_background() -> None:
        assert await place.texts() == ["posted"]
        await write(place.db, "after the response")

    @app.post("/notes/{number}", status_code=201)
    @transactional
    async def post(number: int, tasks: BackgroundTasks, text: str = Depends(words)) -> dict:
        await write(place.db, text)
        if number == 400:
            raise HTTPException(400)
        if number == 303:
            raise HTTPException(303, headers={"location": "/"})
        if number == 500:
            raise RuntimeError
        tasks.add_task(in_background)
        return {"number": number}

    @app.post("/returned/{status}")
    @transactional
    async def returned(status: int) -> Response:
        await write(place.db, "returned")
        return JSONResponse({}, status)

    @app.post("/injected/{status}")
    @transactional
    async def injected(status: int, response: Response) -> dict:
        await write(place.db, "injected")
        response.status_code = status
        return {}

    async with client(app) as opened:
        yield opened


@pytest.mark.parametrize(
    ("path", "status", "rows"),
    [
        ("/notes/1", 201, ["posted", "after the response"]),
        ("/notes/400", 400, []),
        ("/notes/303", 303, ["posted"]),
        ("/notes/500", 500, []),
        ("/notes/no-number", 422, []),
        ("/returned/200", 200, ["returned"]),
        ("/returned/404", 404, []),
        ("/injected/202", 202, ["injected"]),
        ("/injected/409", 409, []),
    ],
)
async def test_fastapi_handler(
    place: Place, web: httpx.AsyncClient, path: str, status: int, rows: list[str]
) -> None:
    assert (await web.post(path)).status_code == status
    assert await place.texts() == rows


async def test_openapi_is_the_one_of_the_undecorated_handler() -> None:
    def schema(decorate) -> dict:
        app = FastAPI()

        @app.get("/items/{number}")
        @decorate
        async def read(number: int, query: str | None = None) -> dict[str, int]:
            """Read one."""
            return {}

        return app.openapi()

    assert schema(transactional) == schema(lambda function: function)


def test_click_command(tmp_path) -> None:
    url = f"sqlite:///{tmp_path / 'cli.db'}"
    database = Database(url)

    @transactional
    async def work(fail: bool) -> int:
        connection = await (await db_session(database)).connection()
        await connection.run_sync(metadata.create_all)
        await write(database, "from the command line")
        if fail:
            raise click.ClickException("failed")
        return await count(database)

    @click.command()
    @click.option("--fail", is_flag=True)
    def command(fail: bool) -> None:
        click.echo(asyncio.run(work(fail)))

    runner = CliRunner()
    assert runner.invoke(command, []).output == "1\n"
    assert runner.invoke(command, ["--fail"]).exit_code == 1
    assert runner.invoke(command, []).output == "2\n"
