"""The four functions themselves: what they take, when it is awaited, where they are refused."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any

import pytest

from tests.boundary.test_hooks import Face, both_faces
from tests.conftest import Place
from tests.notes import Boom, count, write
from txkit import (
    ContextClosedError,
    NoContextError,
    after_commit,
    after_completion,
    after_rollback,
    before_commit,
    transactional,
)

REGISTER: list[Callable[[Any], Any]] = [
    before_commit,
    after_commit,
    after_rollback,
    after_completion,
]
every_kind = pytest.mark.parametrize("register", REGISTER, ids=lambda one: one.__name__)


class TestFunctions:
    @both_faces
    @pytest.mark.parametrize("fails", [False, True])
    async def test_awaited_before_the_call_returns(
        self, place: Place, face: Face, fails: bool
    ) -> None:
        """Scenario: async hooks of each kind, by decorator, that let others run meanwhile.
        Outcome: they have ended when the call returns or raises."""
        told: list[str] = []

        async def body() -> None:
            @before_commit
            async def before() -> None:
                await count(place.db)
                told.append("before")

            @after_commit
            async def commit() -> None:
                await asyncio.sleep(0)
                told.append("commit")

            @after_rollback
            async def rollback() -> None:
                await asyncio.sleep(0)
                told.append("rollback")

            @after_completion
            async def completion(outcome: str) -> None:
                await asyncio.sleep(0)
                told.append(outcome)

            await write(place.db, "a")
            if fails:
                raise Boom

        if fails:
            with pytest.raises(Boom):
                await face(body)
            assert told == ["rollback", "rolled_back"]
        else:
            await face(body)
            assert told == ["before", "commit", "committed"]

    @every_kind
    async def test_registering_gives_the_function_back(self, register: Callable) -> None:
        def hook(*_: object) -> None: ...

        async with transactional():
            assert register(hook) is hook
            if register is after_commit:
                assert after_commit(robust=True)(hook) is hook
                assert after_commit()(hook) is hook
                assert after_commit(hook, robust=True) is hook

    async def test_whatever_can_be_called_is_awaited_if_it_can_be(self, place: Place) -> None:
        told: list[str] = []

        class Service:
            async def method(self) -> None:
                await asyncio.sleep(0)
                told.append("method")

            async def __call__(self) -> None:
                await asyncio.sleep(0)
                told.append("object")

        async def with_argument(text: str) -> None:
            await asyncio.sleep(0)
            told.append(text)

        async with transactional():
            after_commit(Service().method)
            after_commit(Service())
            after_commit(functools.partial(with_argument, "partial"))
            after_commit(lambda: with_argument("given back"))
            await write(place.db, "kept")
        assert told == ["method", "object", "partial", "given back"]

    async def test_outcome_is_a_plain_text(self) -> None:
        told: list[object] = []
        async with transactional():
            after_completion(told.append)
        assert [type(outcome) for outcome in told] == [str]

    @every_kind
    async def test_what_can_not_be_called_is_refused(self, register: Callable) -> None:
        async with transactional():
            with pytest.raises(TypeError, match=f"{register.__name__} takes a function"):
                register("hook")

    @every_kind
    async def test_what_wants_other_arguments_is_refused_before_the_commit(
        self, register: Callable
    ) -> None:
        class Mail:
            async def send(self, order: int, to: str) -> None: ...
            def __call__(self, order: int, to: str) -> None: ...

        def by_name(*_: object, order: int) -> None: ...

        wrong = [
            Mail().send,
            Mail(),
            by_name,
            transactional(Mail.send),
            functools.partial(Mail().send, 1),
        ]
        if register is after_completion:
            wrong += [lambda: None, Mail]
            wrong.remove(wrong[4])
        else:
            wrong += [lambda outcome: outcome, [].append]
        async with transactional():
            for one in wrong:
                with pytest.raises(TypeError, match="give the arguments along"):
                    register(one)

    @every_kind
    async def test_arguments_that_need_not_be_given_are_no_mistake(
        self, register: Callable
    ) -> None:
        told: list[object] = []

        class Mail:
            def send(self, *_: object, to: str = "all") -> None:
                told.append(to)

            def note(self, outcome: str = "none") -> None:
                told.append(outcome)

        async with transactional():
            if register is after_rollback:
                return
            register(Mail().send)
            register(Mail().note)
            register(functools.partial(Mail.send, Mail(), to="one"))
        assert told == ["all", "committed" if register is after_completion else "none", "one"]


class TestContextRequired:
    @every_kind
    async def test_registering_without_a_context_says_what_is_missing(
        self, register: Callable
    ) -> None:
        with pytest.raises(NoContextError, match="@transactional") as caught:
            register(lambda *_: None)
        assert caught.value.function == register.__name__

    @every_kind
    async def test_late_task_is_told_that_its_context_has_ended(self, register: Callable) -> None:
        ended = asyncio.Event()

        async def late() -> None:
            await ended.wait()
            register(lambda *_: None)

        async with transactional():
            task = asyncio.create_task(late())
        ended.set()
        with pytest.raises(ContextClosedError, match=register.__name__):
            await task
