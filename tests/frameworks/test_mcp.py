"""The MCP SDK: a tool's result is sent when its unit has committed."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest
import uvicorn
from mcp import Client, MCPError
from mcp.server.mcpserver import Context, MCPServer, Resolve
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import CallToolResult, TextContent
from pydantic import BaseModel, Field

from tests.conftest import PostgresJudge
from tests.frameworks.work import Later, SideBySide, Transfer, work
from tests.notes import Boom, write
from txkit import Database, after_completion, transactional


class Note(BaseModel):
    text: str
    stars: Annotated[int, Field(le=5)] = 0


def shout(note: Note) -> str:
    return note.text.upper()


async def take(
    note: Note,
    context: Context[Any, Any],
    loud: Annotated[str, Resolve(shout)],
    count: Annotated[int, Field(gt=0, description="How often.")] = 1,
) -> Note:
    """Take a note."""
    assert loud == note.text.upper()
    return Note(text=f"{note.text} {type(context).__name__}", stars=count)


async def test_tools_schema_and_answers_are_those_of_the_undecorated_one() -> None:
    views: list[object] = []
    for function in (take, transactional(take)):
        server = MCPServer("notes")
        server.tool()(function)
        async with Client(server) as client:
            good = await client.call_tool("take", {"note": {"text": "tea"}, "count": "2"})
            bad = await client.call_tool("take", {"note": {"stars": 9}, "count": 0})
            (tool,) = (await client.list_tools()).tools
            views.append((tool, good, bad.is_error, bad.content))
    assert '"How often."' in repr(views[0]).replace("'", '"')
    assert "tea Context" in repr(views[0])
    assert views[0] == views[1]


async def test_result_comes_after_the_commit_and_an_exception_rolls_back(
    db: Database, pg: PostgresJudge
) -> None:
    server = MCPServer("notes")

    @server.tool()
    @transactional
    async def add(text: str) -> str:
        return await work(db, text)

    async with Client(server) as client:
        good = await client.call_tool("add", {"text": "good"})
        assert (good.is_error, good.structured_content) == (False, {"result": "good done"})
        assert await pg.texts() == ["good"]
        assert (await client.call_tool("add", {"text": "bad"})).is_error
    assert await pg.texts() == ["good"]


async def test_error_of_the_protocol_and_of_the_tool_roll_back(
    db: Database, pg: PostgresJudge
) -> None:
    server = MCPServer("notes")

    @server.tool()
    @transactional
    async def add(text: str) -> None:
        await write(db, text)
        raise MCPError(-32000, "no") if text == "protocol" else ToolError("no")

    async with Client(server) as client:
        assert (await client.call_tool("add", {"text": "tool"})).is_error
        with pytest.raises(MCPError, match="no"):
            await client.call_tool("add", {"text": "protocol"})
    assert await pg.texts() == []


def is_good(result: Any, error: BaseException | None) -> bool:
    return error is None and not result.is_error


@pytest.mark.parametrize(("options", "texts"), [({}, ["tea"]), ({"outcome": is_good}, [])])
async def test_error_that_is_returned_commits_unless_a_rule_says_otherwise(
    db: Database, pg: PostgresJudge, options: dict[str, Any], texts: list[str]
) -> None:
    server = MCPServer("notes")

    @server.tool()
    @transactional(**options)
    async def add(text: str) -> CallToolResult:
        await write(db, text)
        return CallToolResult(content=[TextContent(type="text", text="no")], is_error=True)

    async with Client(server) as client:
        assert (await client.call_tool("add", {"text": "tea"})).is_error
    assert await pg.texts() == texts


async def test_resource_and_prompt_and_bound_method_are_units(
    db: Database, pg: PostgresJudge
) -> None:
    server = MCPServer("notes")

    class Notes:
        @transactional
        async def add(self, text: str) -> str:
            return await work(db, text)

    server.add_tool(Notes().add)
    server.resource("notes://{text}")(transactional(resource_of(db)))
    server.prompt()(transactional(prompt_of(db)))
    async with Client(server) as client:
        await client.call_tool("add", {"text": "tool"})
        read = await client.read_resource("notes://resource")
        assert "resource done" in repr(read.contents)
        prompt = await client.get_prompt("ask", {"text": "prompt"})
        assert "prompt done" in repr(prompt.messages)
        with pytest.raises(MCPError):
            await client.read_resource("notes://bad")
    assert await pg.texts() == ["tool", "resource", "prompt"]


def resource_of(db: Database) -> Any:
    async def read(text: str) -> str:
        return await work(db, text)

    return read


def prompt_of(db: Database) -> Any:
    async def ask(text: str) -> str:
        return await work(db, text)

    return ask


async def test_progress_is_told_before_the_commit(db: Database, pg: PostgresJudge) -> None:
    server = MCPServer("notes")
    seen: list[list[str]] = []
    was_told = asyncio.Event()

    @server.tool()
    @transactional
    async def add(text: str, context: Context[Any, Any]) -> None:
        await write(db, text)
        await context.report_progress(1, 2)
        await was_told.wait()

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        seen.append(await pg.texts())
        was_told.set()

    async with Client(server) as client, asyncio.timeout(20):
        await client.call_tool("add", {"text": "tea"}, progress_callback=hear)
    assert seen == [[]]
    assert await pg.texts() == ["tea"]


async def test_call_that_the_client_gives_up_is_rolled_back(
    db: Database, pg: PostgresJudge
) -> None:
    server = MCPServer("notes")
    has_written = asyncio.Event()
    ended: asyncio.Queue[str] = asyncio.Queue()

    @server.tool()
    @transactional
    async def add(text: str) -> None:
        after_completion(ended.put_nowait)
        await write(db, text)
        has_written.set()
        await asyncio.Event().wait()

    async with Client(server) as client, asyncio.timeout(20):
        task = asyncio.create_task(client.call_tool("add", {"text": "tea"}))
        await has_written.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await ended.get() == "rolled_back"
    assert await pg.texts() == []


async def test_calls_side_by_side_do_not_meet(db: Database, pg: PostgresJudge) -> None:
    server = MCPServer("notes")
    server.tool("add")(transactional(SideBySide(db).work))
    async with Client(server) as client:
        good, bad = await asyncio.gather(
            client.call_tool("add", {"text": "good"}), client.call_tool("add", {"text": "bad"})
        )
    assert (good.is_error, bad.is_error) == (False, True)
    assert await pg.texts() == ["good"]


async def test_task_that_outlives_the_call_has_its_own_unit(
    db: Database, pg: PostgresJudge
) -> None:
    server = MCPServer("notes")
    later = Later(db)

    @server.tool()
    @transactional
    async def add(text: str) -> None:
        await write(db, text)
        later.start(f"{text} later")

    async with Client(server) as client:
        await client.call_tool("add", {"text": "tea"})
    assert await pg.texts() == ["tea"]
    await later.finish()
    assert await pg.texts() == ["tea", "tea later"]


@contextlib.asynccontextmanager
async def served(server: MCPServer) -> AsyncIterator[str]:
    """Serve over HTTP on a port of 127.0.0.1; give the URL."""
    listening = socket.create_server(("127.0.0.1", 0))
    app = server.streamable_http_app()
    web = uvicorn.Server(uvicorn.Config(app, ws="none", log_level="warning"))
    serving = asyncio.create_task(web.serve(sockets=[listening]))
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/mcp"
    finally:
        web.should_exit = True
        await serving


@pytest.mark.parametrize(("over_http", "texts"), [(True, ["tool"]), (False, [])])
async def test_call_inside_a_unit_is_a_unit_of_its_own_over_http_and_joins_in_process(
    db: Database, pg: PostgresJudge, over_http: bool, texts: list[str]
) -> None:
    server = MCPServer("notes")

    @server.tool()
    @transactional
    async def add(text: str) -> str:
        return await work(db, text)

    @transactional
    async def unit(client: Client) -> None:
        await write(db, "unit")
        await client.call_tool("add", {"text": "tool"})
        assert await pg.texts() == texts
        raise Boom

    async with contextlib.AsyncExitStack() as stack:
        target = await stack.enter_async_context(served(server)) if over_http else server
        async with Client(target) as client:
            with pytest.raises(Boom):
                await unit(client)
    assert await pg.texts() == texts


async def test_what_has_no_decorator_is_told(db: Database, pg: PostgresJudge) -> None:
    transfer = Transfer(db, pg)
    server = MCPServer("notes")

    @server.tool()
    async def add() -> None:
        await transfer.debit()
        await transfer.credit()

    async with Client(server) as client:
        with transfer.is_told("add"):
            assert not (await client.call_tool("add")).is_error
    assert await pg.texts() == ["debit", "credit"]
