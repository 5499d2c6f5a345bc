"""The same said twice on a function, and what decorating says."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from txkit import Database, atomic, new_context, transactional


async def asynchronous() -> None: ...


DB, OTHER = Database("sqlite:///one.db"), Database("sqlite:///other.db")


class TestTwice:
    @pytest.mark.parametrize(
        ("upper", "lower"),
        [
            (transactional, transactional),
            (transactional(name="x"), transactional),
            (transactional, transactional(timeout_s=3)),
            (transactional, new_context),
            (new_context, transactional),
            (new_context, new_context),
            (transactional(propagation="nested"), transactional(propagation="nested")),
            (atomic, atomic),
            (atomic(DB), atomic(DB)),
            (atomic(DB, OTHER), atomic(OTHER)),
            (atomic(DB), atomic),
        ],
    )
    def test_same_said_twice(self, upper, lower) -> None:
        with pytest.raises(TypeError, match="stands above @.*one of them has no effect"):

            @upper
            @lower
            async def function() -> None: ...

        with pytest.raises(TypeError, match="stands above @"):

            class Service:
                @upper
                @lower
                @classmethod
                async def function(cls) -> None: ...

    @pytest.mark.parametrize(
        ("upper", "lower"),
        [
            (transactional(read_only=True), atomic(DB)),
            (atomic(DB), transactional(propagation="mandatory")),
            (atomic(DB), atomic(OTHER)),
            (transactional(propagation="mandatory"), transactional(propagation="nested")),
            (transactional(propagation="never"), transactional),
            (transactional(propagation="mandatory"), new_context),
        ],
    )
    def test_what_makes_a_difference_is_allowed(self, upper, lower) -> None:
        @upper
        @lower
        async def function() -> None: ...

    def test_decorator_of_ones_own_in_between_has_its_reasons(self) -> None:
        @transactional
        @log  # may call it once for each item, in the unit of the one above
        @new_context
        async def function() -> None: ...

    def test_next_input_of_a_prompt(self) -> None:
        names = {"transactional": transactional}
        for line in (
            "@transactional\nasync def f(): ...",
            "g = transactional(timeout_s=1)(f)",
            "h = (lambda f: transactional(timeout_s=1)(transactional(f)))(f.__wrapped__)",
        ):
            exec(compile(line + "\n", "<stdin>", "single"), names)

    def test_who_calls_the_decorator_may_add_to_what_is_there(self) -> None:
        decorated = transactional(asynchronous)
        assert transactional(timeout_s=1)(decorated) is not decorated
        assert new_context(decorated) is not decorated


def log(function: Any) -> Any:
    @functools.wraps(function)
    async def logged(*args: object) -> object:
        return await function(*args)

    return logged
