"""One block object that several coroutines enter: each exit ends what it entered. On both backends."""

from __future__ import annotations

import asyncio
import contextlib
import threading

import pytest

from tests.conftest import Place, PostgresJudge
from tests.notes import Boom, write
from txkit import (
    transactional,
)


class TestSharedObject:
    async def test_exit_in_a_generator_ends_its_own_unit(self, place: Place) -> None:
        """Scenario: a generator and its consumer enter the same object; the generator is left
        first. Outcome: each ends what it entered."""
        if not place.judge.url.startswith("postgresql"):
            return  # one writer
        unit = transactional(propagation="requires_new")

        async def generate():
            async with unit:
                await write(place.db, "generator")
                yield 1

        generator = generate()
        await anext(generator)
        with pytest.raises(Boom):
            async with unit:
                await write(place.db, "consumer")
                assert await anext(generator, None) is None
                assert await place.texts() == ["generator"]
                await write(place.db, "consumer")
                raise Boom
        assert await place.texts() == ["generator"]

    async def test_exit_stack_is_closed_with_its_coroutine(self, place: Place) -> None:
        inside, threads = asyncio.Event(), set(threading.enumerate())

        async def unit() -> None:
            async with contextlib.AsyncExitStack() as stack:
                await stack.enter_async_context(transactional())
                await write(place.db, "lost")
                inside.set()
                await asyncio.Event().wait()

        coroutine = unit()
        task = asyncio.ensure_future(coroutine)
        await inside.wait()
        coroutine.close()
        task.cancel()
        with pytest.raises(RuntimeError, match="already awaited"):
            await task
        assert (await place.db.engine()).pool.checkedout() == 0  # type: ignore[attr-defined]
        if isinstance(place.judge, PostgresJudge):
            while await place.judge.backends():
                await asyncio.sleep(0)
        else:  # the driver's thread answers the loop, which has to be there
            async with asyncio.timeout(10):
                while set(threading.enumerate()) - threads:
                    await asyncio.sleep(0)
        assert await place.texts() == []
