"""What a wrapper of wrapt's breaks by itself, and a decorated function does not.

Each of these was seen with a stock ``wrapt.decorator``. CI runs them with the oldest
wrapt that is promised too, and (from here) with its pure Python half.
"""

from __future__ import annotations

import copy
import functools
import inspect
import os
import pickle
import subprocess
import sys
import types
import typing
import weakref
from pathlib import Path
from unittest import mock

import pytest
import wrapt

from txkit import atomic, new_context, transactional

every_decorator = pytest.mark.parametrize("decorator", [transactional, atomic, new_context])


@typing.runtime_checkable
class Attributed(typing.Protocol):
    attribute: int


class Example:
    @transactional
    async def method(self, x: int, *, y: str = "y") -> list[int]:
        """Say it."""
        return [x]

    @transactional
    @classmethod
    async def of_class(cls, x: int) -> list[int]:
        return [x]

    @transactional
    @staticmethod
    async def static(x: int) -> list[int]:
        return [x]


@transactional
async def example(x: int, *, y: str = "y") -> list[int]:
    """Say it."""
    return [x]


async def plain(x: int, *, y: str = "y") -> list[int]:
    """Say it."""
    return [x]


HINTS = {"x": int, "y": str, "return": list[int]}


class TestAnnotations:
    """One ``isinstance`` with a runtime protocol, anywhere in the process, blanks wrapt's."""

    @every_decorator
    def test_they_survive_a_protocol_check(self, decorator) -> None:
        decorated = decorator(plain)
        for look in (decorated, Example.method, Example().method):
            assert not isinstance(look, Attributed)
        assert decorated.__annotations__ == {"x": "int", "y": "str", "return": "list[int]"}
        assert inspect.get_annotations(decorated, eval_str=True) == HINTS
        assert typing.get_type_hints(decorated) == HINTS
        assert typing.get_type_hints(Example().method) == HINTS

    def test_they_can_be_replaced_as_those_of_a_function(self) -> None:
        @transactional
        async def function(x: int) -> None: ...

        function.__annotations__ = {"x": "str"}
        assert function.__wrapped__.__annotations__ == {"x": "str"}
        assert typing.get_type_hints(function) == {"x": str}
        assert inspect.get_annotations(function.__call__) == {"x": "str"}


class TestCopies:
    """Litestar copies its handlers, others pickle a task's function."""

    @every_decorator
    def test_it_is_copied_as_a_function_is(self, decorator) -> None:
        decorated = decorator(plain)
        assert copy.copy(decorated) is decorated
        assert copy.deepcopy({"f": [decorated]})["f"] == [decorated]

    async def test_bound_method_is_copied_with_its_object(self) -> None:
        example = Example()
        shallow, deep = copy.copy(example.method), copy.deepcopy(example.method)
        assert shallow.__self__ is example
        assert type(deep.__self__) is Example
        assert await deep(1) == [1]

    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_it_is_pickled_by_its_name(self, protocol: int) -> None:
        def again(value: object) -> object:
            return pickle.loads(pickle.dumps(value, protocol))

        assert again(example) is example
        assert again(Example.static) == Example.static

    async def test_bound_method_is_pickled_with_its_object(self) -> None:
        again = pickle.loads(pickle.dumps(Example().method))
        assert await again(3) == [3]
        assert pickle.loads(pickle.dumps(Example.of_class)).__self__ is Example


class TestCall:
    """A Python ``def __call__`` on the wrapper's class hides the coroutine function from Litestar."""

    @every_decorator
    def test_its_call_is_a_coroutine_function(self, decorator) -> None:
        decorated = decorator(plain)
        assert inspect.iscoroutinefunction(decorated.__call__)
        assert inspect.signature(decorated.__call__) == inspect.signature(plain)

    async def test_it_can_be_called_through_it(self) -> None:
        assert await example.__call__(1) == [1]
        assert await example(1, y="z") == [1]
        with pytest.raises(TypeError, match="unexpected keyword"):
            await example(1, z=2)


class TestAttributes:
    """What is set on a wrapper lands on the function; nothing of ours does."""

    @every_decorator
    def test_users_attributes_are_the_functions(self, decorator) -> None:
        async def function() -> None: ...

        decorated = decorator(function)
        decorated.flag = 1
        assert function.flag == decorated.flag == 1
        del function.flag
        assert not hasattr(decorated, "flag")

    @every_decorator
    def test_ours_do_not_land_on_it(self, decorator) -> None:
        async def function() -> None: ...

        before = dict(vars(function))
        decorated = decorator(function)
        assert vars(function) == before
        assert decorated.__wrapped__ is function

    def test_two_decorated_ones_of_a_function_do_not_meet(self) -> None:
        one, other = transactional(plain), new_context(plain)
        assert one._self_entry is not other._self_entry
        assert one.__wrapped__ is other.__wrapped__ is plain


class TestViews:
    """What ``inspect`` and ``typing`` say is what they say of the function."""

    @every_decorator
    def test_of_a_function(self, decorator) -> None:
        decorated = decorator(plain)
        for name in ("__name__", "__qualname__", "__module__", "__doc__", "__defaults__"):
            assert getattr(decorated, name) == getattr(plain, name)
        assert inspect.signature(decorated) == inspect.signature(plain)
        assert str(inspect.signature(decorated, eval_str=True)).startswith("(x: int, *, y: str")
        assert inspect.getdoc(decorated) == "Say it."
        assert inspect.unwrap(decorated) is plain
        assert inspect.getsource(decorated) == inspect.getsource(plain)
        assert inspect.getfullargspec(decorated) == inspect.getfullargspec(plain)
        assert inspect.iscoroutinefunction(decorated)
        assert not inspect.isasyncgenfunction(decorated)
        assert inspect.isfunction(decorated)
        assert inspect.isroutine(decorated)
        assert isinstance(decorated, types.FunctionType)
        assert callable(decorated)

    def test_of_methods(self) -> None:
        assert list(inspect.signature(Example.method).parameters) == ["self", "x", "y"]
        assert list(inspect.signature(Example().method).parameters) == ["x", "y"]
        assert list(inspect.signature(Example.of_class).parameters) == ["x"]
        assert inspect.ismethod(Example().method)
        assert Example().method.__name__ == "method"
        assert Example().method.__self__.__class__ is Example
        for one in (Example.method, Example().method, Example.of_class, Example.static):
            assert inspect.iscoroutinefunction(one)
        names = {name for name, _ in inspect.getmembers(Example, inspect.isroutine)}
        assert {"method", "of_class", "static"} <= names

    def test_of_a_stream(self) -> None:
        async def stream() -> typing.AsyncIterator[int]:
            yield 1

        decorated = transactional(stream)
        assert inspect.isasyncgenfunction(decorated)
        assert not inspect.iscoroutinefunction(decorated)

    def test_it_is_hashed_compared_and_referred_to_weakly(self) -> None:
        assert {example: 1}[example] == 1
        assert example == example.__wrapped__
        assert weakref.ref(example)() is example


class TestPartial:
    def test_partial_of_a_decorated_function(self) -> None:
        partial = functools.partial(example, y="z")
        assert inspect.iscoroutinefunction(partial)
        assert str(inspect.signature(partial)).startswith("(x: 'int', *, y: 'str' = 'z')")
        assert functools.partial(example).func is example

    async def test_partial_runs_and_can_be_decorated(self) -> None:
        assert await functools.partial(example, 1)() == [1]
        assert await transactional(functools.partial(plain, 1))() == [1]
        assert await functools.partial(Example().method, 2)(y="z") == [2]

    async def test_partialmethod(self) -> None:
        class Service(Example):
            second = functools.partialmethod(Example.method, 2)

        assert await Service().second() == [2]

    async def test_wraps_over_it(self) -> None:
        @functools.wraps(example)
        async def outer(*args: typing.Any, **kwargs: typing.Any) -> typing.Any:
            return await example(*args, **kwargs)

        assert inspect.signature(outer) == inspect.signature(plain)
        assert await outer(1) == [1]


class TestMock:
    async def test_autospec_of_a_function(self) -> None:
        with mock.patch(f"{__name__}.example", autospec=True) as replaced:
            await example(1, y="z")
            with pytest.raises(TypeError):
                await example(1, 2, 3)
        replaced.assert_awaited_once_with(1, y="z")

    async def test_autospec_of_a_method(self) -> None:
        with mock.patch.object(Example, "method", autospec=True) as replaced:
            await Example().method(1)
            with pytest.raises(TypeError):
                await Example().method()
        assert replaced.await_args.args[1:] == (1,)

    async def test_autospec_of_a_class(self) -> None:
        service = mock.create_autospec(Example, instance=True)
        service.method.return_value = [5]
        assert await service.method(1) == [5]
        with pytest.raises(TypeError):
            service.method(1, 2)


def test_all_of_it_holds_for_wrapt_without_its_extension() -> None:
    code = (
        "import sys, pytest, wrapt\n"
        "assert hasattr(wrapt.FunctionWrapper.__init__, '__code__'), 'the extension is there'\n"
        "sys.exit(pytest.main(['-q', '-n0', '-k', 'not extension', sys.argv[1]]))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, __file__],
        env={**os.environ, "WRAPT_DISABLE_EXTENSIONS": "1"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_extension_is_there() -> None:
    assert not hasattr(wrapt.FunctionWrapper.__init__, "__code__")
