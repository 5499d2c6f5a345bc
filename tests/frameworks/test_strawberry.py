"""Strawberry: decorated resolvers, behind its ASGI application."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import pytest
import strawberry
from strawberry.asgi import GraphQL
from strawberry.dataloader import DataLoader

from tests.conftest import PostgresJudge
from tests.frameworks.asgi import asgi_server
from tests.frameworks.web import SLOW_COMMIT, Front, Services, front_of, services
from tests.frameworks.work import Transfer
from tests.notes import Boom
from txkit import new_context, transactional

__all__ = ["services"]


def schema(services: Services, decorate: Callable[[Any], Any] = transactional) -> strawberry.Schema:
    @new_context
    async def load(texts: list[str]) -> list[str]:
        for text in texts:
            await services.write(f"{text} loaded")
        return texts

    @strawberry.type
    class Note:
        text: str

        @strawberry.field
        @decorate
        async def upper(self, info: strawberry.Info) -> str:
            """Give it in capitals."""
            await services.write(f"{self.text} read")
            return self.text.upper()

    @strawberry.type
    class Query:
        @strawberry.field
        @decorate
        async def note(self, text: str, times: int = 1) -> Note:
            """Give a note."""
            await services.write(text, times)
            return Note(text=text)

        @strawberry.field
        @decorate
        async def waits(self, text: str) -> str:
            await services.write(text)
            await services.meetings[text].wait()
            return text

        @strawberry.field
        @decorate
        async def loaded(self, info: strawberry.Info, text: str) -> str:
            await services.write(text)
            return await info.context["loader"].load(text)

    @strawberry.type
    class Mutation:
        @strawberry.mutation
        @decorate
        async def add(self, text: str, times: int = 1) -> Note:
            """Add a note."""
            await services.write(text, times)
            return Note(text=text)

        @strawberry.mutation
        @decorate
        async def fails(self, text: str) -> str | None:
            await services.write(text)
            raise Boom("no")

        @strawberry.mutation
        @decorate
        async def waits(self, text: str) -> str:
            await services.write(text)
            await services.meetings[text].wait()
            return text

    @strawberry.type
    class Subscription:
        @strawberry.subscription
        @decorate
        async def lines(self, text: str) -> AsyncGenerator[str, None]:
            async with aclosing(services.lines(text)) as lines:
                async for line in lines:
                    yield line

    class Schema(strawberry.Schema):
        loaders = staticmethod(lambda: {"loader": DataLoader(load)})

    return Schema(Query, Mutation, Subscription)


class Application(GraphQL[Any, Any]):
    async def get_context(self, request: Any, response: Any) -> Any:
        return self.schema.loaders()


@pytest.fixture
async def front(services: Services, pg: PostgresJudge) -> AsyncIterator[Front]:
    app = Application(schema(services))
    async with asgi_server(app) as port, front_of(port, services, pg) as one:
        yield one


async def ask(front: Front, query: str) -> dict[str, Any]:
    answer = await front.client.post("/", json={"query": query})
    assert answer.status_code == 200
    return dict(answer.json())


async def test_mutation_commits_before_the_first_byte(front: Front) -> None:
    await front.judge.connection.execute(SLOW_COMMIT)
    query = {"query": 'mutation { add(text: "tea", times: 2) { text } }'}
    async with front.client.stream("POST", "/", json=query) as answer:
        assert await front.texts() == ["tea", "tea"]
        await answer.aread()
        assert answer.json() == {"data": {"add": {"text": "tea"}}}


async def test_arguments_that_are_refused_leave_nothing(front: Front) -> None:
    found = await ask(front, 'mutation { add(text: "tea", times: "many") { text } }')
    assert "Int cannot represent" in found["errors"][0]["message"]
    assert await front.texts() == []


async def test_error_in_a_resolver_rolls_back_and_is_told(front: Front) -> None:
    found = await ask(front, 'mutation { fails(text: "lost") }')
    assert [(one["message"], one["path"]) for one in found["errors"]] == [("no", ["fails"])]
    assert await front.texts() == []


async def test_each_mutation_of_a_request_is_a_unit(front: Front) -> None:
    found = await ask(
        front,
        'mutation { a: add(text: "tea") { text } b: fails(text: "lost") c: add(text: "milk") { text } }',
    )
    assert found["data"] == {"a": {"text": "tea"}, "b": None, "c": {"text": "milk"}}
    assert [one["path"] for one in found["errors"]] == [["b"]]
    assert await front.texts() == ["tea", "milk"]


async def test_field_of_a_mutations_result_is_a_unit_after_it(front: Front) -> None:
    found = await ask(front, 'mutation { add(text: "tea") { upper } }')
    assert found["data"] == {"add": {"upper": "TEA"}}
    assert await front.texts() == ["tea", "tea read"]


async def test_fields_of_a_query_are_units_side_by_side(front: Front) -> None:
    meetings = front.services.meetings
    asked = asyncio.create_task(ask(front, '{ a: waits(text: "tea") b: waits(text: "milk") }'))
    await meetings["tea"].come()
    await meetings["milk"].come()
    states = [state for _, state in await front.judge.backends()]
    assert states == ["idle in transaction"] * 2
    meetings["milk"].go_on()
    meetings["tea"].go_on()
    assert (await asked)["data"] == {"a": "tea", "b": "milk"}
    assert sorted(await front.texts()) == ["milk", "tea"]


async def test_field_that_fails_takes_its_unfinished_siblings_along(front: Front) -> None:
    """Where the answer has no room for its null: the siblings are cancelled."""
    meetings = front.services.meetings
    asked = asyncio.create_task(ask(front, '{ a: waits(text: "tea") b: waits(text: "milk") }'))
    await meetings["tea"].come()
    await meetings["milk"].come()
    meetings["tea"].fail()
    assert (await asked)["data"] is None
    meetings["milk"].go_on()
    await front.quiet()
    assert await front.texts() == []


async def test_batch_of_a_data_loader_is_a_unit_of_its_own(front: Front) -> None:
    found = await ask(front, '{ a: loaded(text: "tea") b: loaded(text: "milk") }')
    assert found["data"] == {"a": "tea", "b": "milk"}
    texts = await front.texts()
    assert sorted(texts) == ["milk", "milk loaded", "tea", "tea loaded"]


async def test_client_that_goes_away_is_not_noticed(front: Front) -> None:
    query = {"query": 'mutation { waits(text: "gone") }'}
    asked = asyncio.create_task(front.client.post("/", json=query))
    await front.services.meetings["gone"].come()
    asked.cancel()
    await asyncio.wait([asked])
    front.services.meetings["gone"].go_on()
    await front.quiet()
    assert await front.texts() == ["gone"]


async def test_subscription_is_one_unit(services: Services, pg: PostgresJudge) -> None:
    services.meetings["kept"].go_on()
    results: Any = await schema(services).subscribe('subscription { lines(text: "kept") }')
    assert (await anext(results)).data == {"lines": "first\n"}
    assert await pg.texts() == []
    assert len([one async for one in results]) == 100
    assert await pg.texts() == ["kept"]


async def test_subscription_that_is_left_is_rolled_back(
    services: Services, pg: PostgresJudge
) -> None:
    results: Any = await schema(services).subscribe('subscription { lines(text: "lost") }')
    assert (await anext(results)).data == {"lines": "first\n"}
    await results.aclose()
    assert await pg.texts() == []


async def test_schema_is_as_without_the_decorator(services: Services) -> None:
    document = schema(services).as_str()
    assert document == schema(services, lambda function: function).as_str()
    assert "add(text: String!, times: Int! = 1): Note!" in document


async def test_resolver_without_a_decorator_is_told(services: Services, pg: PostgresJudge) -> None:
    transfer = Transfer(services.db, pg)

    @strawberry.type
    class Query:
        @strawberry.field
        async def note(self) -> str:
            await transfer.debit()
            await transfer.credit()
            return "done"

    async with asgi_server(GraphQL(strawberry.Schema(Query))) as port:
        async with front_of(port, services, pg) as front:
            with transfer.is_told("note"):
                assert (await ask(front, "{ note }"))["data"] == {"note": "done"}
    assert await pg.texts() == ["debit", "credit"]
