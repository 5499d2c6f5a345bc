"""What many web frameworks have besides routes: views in classes, injection, error handlers.

Further contracts, as those in `web`; an application has the routes of those that its
module inherits.

    POST /view/TEXT        a decorated method of a class-based view: writes, "bad" raises Boom
    POST /needs/TEXT       an injected value comes of MoreServices.need(TEXT); the handler
                           writes that, answers it, or raises Boom if TEXT is "bad"
    POST /pair/TEXT        a generator's value, around a handler that writes; "bad" raises Boom
    POST /handled/TEXT     writes, raises an exception, of which the application makes a 200
    WS   /whole            Services.message for every message up to "end", all of it one
                           unit: the endpoint itself is decorated, and fails at "bad"
"""

from __future__ import annotations

from typing import ClassVar

import pytest
import websockets

from tests.conftest import PostgresJudge
from tests.frameworks.web import SLOW_COMMIT, Front, Services, StreamContract
from tests.notes import Boom
from txkit import Database, transactional


class MoreServices(Services):
    """The services of the further routes."""

    @transactional
    async def view(self, text: str) -> str:
        """Write, and fail for "bad"; joins the handler's unit."""
        await self.write(text)
        if text.startswith("bad"):
            raise Boom
        return text

    @transactional
    async def need(self, text: str) -> str:
        """Write for an injected value: a unit of its own."""
        await self.write(text)
        return f"{text} needed"


@pytest.fixture
async def services(db: Database) -> MoreServices:
    return MoreServices(db)


class ViewContract:
    """A decorated method of a class-based view."""

    async def test_view_commits_before_its_answer(self, front: Front) -> None:
        assert await front.texts_at_first_byte("/view/tea") == ["tea"]

    async def test_view_that_fails_rolls_back(self, front: Front) -> None:
        assert (await front.post("/view/bad")).status_code == 500
        assert await front.texts() == []
        assert (await front.post("/view/tea")).text.strip('"') == "tea"


class InjectionContract:
    """A decorated provider is a unit of its own, before the handler's."""

    async def test_injected_value_arrives(self, front: Front) -> None:
        assert (await front.post("/needs/tea")).text.strip('"') == "tea needed"
        assert await front.texts() == ["tea", "tea needed"]

    async def test_what_was_injected_stays_when_the_handler_fails(self, front: Front) -> None:
        assert (await front.post("/needs/bad")).status_code == 500
        assert await front.texts() == ["bad"]


class PairContract:
    """A generator that provides a value is a unit around the handler's: two, that end in turn."""

    at_first_byte: ClassVar[tuple[str, ...]]

    async def test_it_is_a_unit_around_the_handlers(self, front: Front) -> None:
        await front.judge.connection.execute(SLOW_COMMIT)
        assert await front.texts_at_first_byte("/pair/tea") == [*self.at_first_byte]
        await front.quiet()
        assert await front.texts() == ["tea before", "tea", "tea after"]

    async def test_it_is_told_of_the_handlers_failure(self, front: Front) -> None:
        assert (await front.post("/pair/bad")).status_code == 500
        await front.quiet()
        assert await front.texts() == []


class ErrorHandlerContract:
    """What the application makes of an exception comes after the rollback."""

    async def test_exception_that_becomes_an_answer_was_rolled_back(self, front: Front) -> None:
        assert (await front.post("/handled/lost")).status_code == 200
        assert await front.texts() == []


class WholeSocketContract:
    """A decorated WebSocket endpoint is one unit, from the first message to the last."""

    async def test_endpoint_commits_at_its_end(self, front: Front) -> None:
        async with websockets.connect(f"ws://127.0.0.1:{front.port}/whole") as socket:
            for text in ("tea", "milk"):
                await socket.send(text)
                assert await socket.recv() == f"wrote {text}"
            assert await front.texts() == []
            await socket.send("end")
            await socket.wait_closed()
        await front.quiet()
        assert await front.texts() == ["tea", "milk"]

    async def test_endpoint_that_fails_loses_every_message(self, front: Front) -> None:
        async with websockets.connect(f"ws://127.0.0.1:{front.port}/whole") as socket:
            await socket.send("tea")
            assert await socket.recv() == "wrote tea"
            await socket.send("bad")
            await socket.wait_closed()
        await front.quiet()
        assert await front.texts() == []

    async def test_client_that_goes_away_loses_every_message(self, front: Front) -> None:
        async with websockets.connect(f"ws://127.0.0.1:{front.port}/whole") as socket:
            await socket.send("tea")
            assert await socket.recv() == "wrote tea"
        await front.quiet()
        assert await front.texts() == []


class UnwatchedStreamContract(StreamContract):
    """For a framework that makes all of a body, whether or not there is a client any more."""

    test_client_that_leaves_early_rolls_it_back = None  # type: ignore[assignment]

    async def test_client_that_leaves_early_is_not_noticed(self, front: Front) -> None:
        async with front.client.stream("POST", "/stream/kept") as answer:
            assert await anext(answer.aiter_lines()) == "first"
        front.services.meetings["kept"].go_on()
        await front.quiet()
        assert await front.texts() == ["kept"]


REFUSED_COMMIT = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'refused'; END $$;
CREATE CONSTRAINT TRIGGER refused AFTER INSERT ON note DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION refuse();
"""
"""COMMIT is refused by the server: nobody may answer that all is well."""


async def refuse_commits(judge: PostgresJudge) -> None:
    """Let the server refuse every COMMIT of a note."""
    await judge.connection.execute(REFUSED_COMMIT)


class RefusedCommitContract:
    """A commit that fails is an exception of the handler."""

    async def test_commit_that_is_refused_is_a_500(self, front: Front) -> None:
        await refuse_commits(front.judge)
        assert (await front.post("/view/tea")).status_code == 500
        assert await front.texts() == []
