"""What can be decorated, what stays as it was, and what is refused."""

from __future__ import annotations

import asyncio
import functools
import inspect
import types

import click
import pytest

from tests.conftest import Place
from tests.notes import Boom, write
from txkit import Database, atomic, db_session, in_transaction, new_context, transactional

DECORATORS = [
    pytest.param(transactional, id="transactional"),
    pytest.param(transactional(name="named"), id="transactional with options"),
    pytest.param(transactional(), id="transactional()"),
    pytest.param(atomic, id="atomic"),
    pytest.param(atomic(current_transaction="append"), id="atomic with options"),
    pytest.param(new_context, id="new_context"),
    pytest.param(new_context(rollback_for=KeyError), id="new_context with options"),
]
every_decorator = pytest.mark.parametrize("decorator", DECORATORS)


async def inside(db: Database) -> None:
    """Hold only in a context."""
    await db_session(db)


@every_decorator
class TestKinds:
    async def test_function(self, place: Place, decorator) -> None:
        @decorator
        async def function(a: int, /, b: int, *, c: int = 3) -> tuple[int, int, int]:
            await inside(place.db)
            return a, b, c

        assert await function(1, b=2) == (1, 2, 3)

    async def test_methods_in_either_order(self, place: Place, decorator) -> None:
        class Service:
            @decorator
            async def method(self, x: int) -> object:
                await inside(place.db)
                return self, x

            @classmethod
            @decorator
            async def inner_class(cls, x: int) -> object:
                await inside(place.db)
                return cls, x

            @decorator
            @classmethod
            async def outer_class(cls, x: int) -> object:
                await inside(place.db)
                return cls, x

            @staticmethod
            @decorator
            async def inner_static(x: int) -> object:
                await inside(place.db)
                return x

            @decorator
            @staticmethod
            async def outer_static(x: int) -> object:
                await inside(place.db)
                return x

        class Child(Service):
            async def method(self, x: int) -> object:
                return await super().method(x)

        service, child = Service(), Child()
        assert await service.method(1) == (service, 1)
        assert await Service.method(service, x=1) == (service, 1)
        assert await child.method(1) == (child, 1)
        assert await Child.inner_class(1) == (Child, 1)
        assert await child.outer_class(1) == (Child, 1)
        assert await Service.outer_class(1) == (Service, 1)
        assert await service.inner_static(1) == 1
        assert await Service.inner_static(1) == 1
        assert await service.outer_static(x=1) == 1
        assert await Child.outer_static(1) == 1

    async def test_callable_object_partial_and_bound_method(self, place: Place, decorator) -> None:
        class Job:
            async def __call__(self, x: int) -> int:
                await inside(place.db)
                return x

            async def run(self, x: int) -> int:
                await inside(place.db)
                return x

        assert await decorator(Job())(1) == 1
        assert await decorator(functools.partial(Job().run, 2))() == 2
        assert await decorator(functools.partial(Job(), 2))() == 2
        assert await decorator(Job().run)(3) == 3

    async def test_async_generators_wherever_they_stand(self, place: Place, decorator) -> None:
        async def stream(self: object, x: int):
            await inside(place.db)
            yield x

        class Service:
            method = decorator(stream)
            of_class = classmethod(decorator(stream))
            outer_class = decorator(classmethod(stream))

            @staticmethod
            @decorator
            async def static(x: int):
                await inside(place.db)
                yield x

            __call__ = stream

        streams = [
            decorator(stream)(None, 1),
            Service().method(1),
            Service.of_class(1),
            Service().outer_class(x=1),
            Service.static(1),
            decorator(Service())(1),
            decorator(functools.partial(stream, None))(1),
            decorator(types.MethodType(stream, Service))(1),
        ]
        for one in streams:
            assert [x async for x in one] == [1]
        assert inspect.isasyncgenfunction(decorator(stream))
        assert inspect.isasyncgen(decorator(stream)(None, 1))

    async def test_stacked_decorators(self, place: Place, decorator) -> None:
        @decorator
        async def function() -> int:
            await inside(place.db)
            return 1

        assert await new_context(transactional(function))() == 1


def generator():
    yield 1


class Service:
    async def get(self) -> None: ...

    async def all(self):
        yield 1

    def close(self) -> None: ...

    async def put(self) -> None: ...

    async def delete(self) -> None: ...


@click.command()
def command() -> None: ...


def sync_wrapper(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


async def coroutine_function() -> None: ...


@every_decorator
@pytest.mark.parametrize(
    ("what", "text"),
    [
        pytest.param(lambda: None, "make it 'async def'", id="sync function"),
        pytest.param(sync_wrapper(coroutine_function), "put .* below that one", id="wrapped"),
        pytest.param(int, "put it on the methods that need it, where a reader", id="class"),
        pytest.param(
            Service, r"methods that need it \(get, all, put, \.\.\.\), where", id="service"
        ),
        pytest.param(len, "'async def'", id="builtin"),
        pytest.param(generator, "async generator function", id="sync generator"),
        pytest.param(command, "click's Command object.*next to your 'async def'", id="click"),
        pytest.param(functools.partial(int, "1"), "functools.partial object", id="sync partial"),
        pytest.param(property(lambda self: 1), "can't be called", id="property"),
    ],
)
def test_anything_else_is_refused_with_a_way_out(decorator, what: object, text: str) -> None:
    with pytest.raises(TypeError, match=text):
        decorator(what)


def test_coroutine_is_refused() -> None:
    coroutine = coroutine_function()
    with pytest.raises(TypeError, match="can't be called"):
        transactional(coroutine)
    coroutine.close()


@pytest.mark.parametrize(
    "call",
    [
        lambda: new_context(propagation="required"),
        lambda: transactional(coroutine_function, name="x"),
        lambda: atomic(coroutine_function, current_transaction="append"),
        lambda: atomic("db"),
        lambda: atomic(1, 2),
        lambda: transactional(retries=3),
        lambda: transactional("required"),
    ],
)
def test_wrong_call_is_refused(call) -> None:
    with pytest.raises(TypeError):
        call()


class TestBlocks:
    async def test_one_object_for_many_tasks_at_once(self, place: Place) -> None:
        block = transactional(name="shared")
        ready = asyncio.Barrier(2)

        async def work(name: str, error: Exception | None) -> None:
            async with block:
                if place.judge.url.startswith("postgresql"):
                    await write(place.db, name)
                await ready.wait()
                if error is not None:
                    raise error
                await write(place.db, name)

        results = await asyncio.gather(work("a", None), work("b", Boom()), return_exceptions=True)
        assert isinstance(results[1], Boom)
        assert set(await place.texts()) == {"a"}

    async def test_bare_object_is_a_block(self, place: Place) -> None:
        async with transactional, transactional:
            await write(place.db, "a")
        async with new_context:
            await write(place.db, "b")
        assert await place.texts() == ["a", "b"]

    async def test_new_context_inside_is_independent(self, place: Place) -> None:
        with pytest.raises(Boom):
            async with transactional():
                async with new_context():
                    await write(place.db, "kept")
                assert await place.texts() == ["kept"]
                raise Boom

    async def test_joined_block_that_fails_and_is_swallowed_dooms(self, place: Place) -> None:
        with pytest.raises(Exception, match="block in tests.boundary.test_decorating"):
            async with transactional():
                await write(place.db, "lost")
                with pytest.raises(Boom):
                    async with transactional():
                        raise Boom
        assert await place.texts() == []

    async def test_left_in_another_order_is_told(self) -> None:
        outer, inner = transactional(), transactional()
        await outer.__aenter__()
        await inner.__aenter__()
        with pytest.raises(Exception, match="left in another order"):
            await outer.__aexit__(None, None, None)
        await inner.__aexit__(None, None, None)
        await outer.__aexit__(None, None, None)
        assert not in_transaction()

    async def test_sibling_may_join_once_the_first_is_finished(self, place: Place) -> None:
        first = asyncio.Event()

        async def joined(after: asyncio.Event | None) -> None:
            if after is not None:
                await after.wait()
            async with transactional():
                await write(place.db, "early" if after is None else "late")

        async with transactional():
            task = asyncio.create_task(joined(None))
            task.add_done_callback(lambda _: first.set())
            await asyncio.gather(task, joined(first))
        assert await place.texts() == ["early", "late"]

    async def test_sibling_that_is_still_inside_keeps_no_boundary_from_ending(
        self, place: Place
    ) -> None:
        never = asyncio.Event()

        async def fails() -> None:
            raise Boom

        async def slow() -> None:
            async with transactional():
                await never.wait()

        task = None
        with pytest.raises(Boom):
            async with transactional():
                await write(place.db, "lost")
                task = asyncio.ensure_future(slow())
                await asyncio.gather(fails(), task)
        assert not in_transaction()
        assert await place.texts() == []
        assert task is not None
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


class TestStacked:
    """A decorator over one of ours keeps both, whatever is below."""

    async def test_new_context_below_is_kept_on_a_descriptor(self, place: Place) -> None:
        class Service:
            @transactional(propagation="nested")
            @new_context
            @staticmethod
            async def static() -> None:
                await write(place.db, "static")

            @transactional(propagation="nested")
            @new_context
            @classmethod
            async def of_class(cls) -> None:
                assert cls is Service
                await write(place.db, "class")

            @transactional(propagation="nested")
            @new_context
            async def method(self) -> None:
                await write(place.db, "method")

        for call in (Service.static, Service.of_class, Service().method, Service().static):
            with pytest.raises(Boom):
                async with transactional():
                    await call()
                    raise Boom
        assert await place.texts() == ["static", "class", "method", "static"]


class DescriptorJob:
    """A callable object that is a descriptor too."""

    def __get__(self, instance: object, owner: type | None = None) -> DescriptorJob:
        return self

    async def __call__(self) -> int:
        return 1


async def test_callable_object_that_is_a_descriptor() -> None:
    assert await transactional(DescriptorJob())() == 1


@pytest.mark.parametrize(
    "call",
    [
        lambda: transactional(no_rollback_for=KeyError)(name="x"),
        lambda: new_context()(name="x"),
        lambda: atomic(current_transaction="append")(current_transaction="commit"),
        lambda: atomic()(Database("sqlite:///x.db")),
        lambda: transactional(None),
        lambda: transactional(coroutine_function, coroutine_function),
        lambda: transactional(name=3),
    ],
)
def test_second_configuration_and_nonsense_are_refused(call) -> None:
    with pytest.raises(TypeError):
        call()


@pytest.mark.parametrize("decorate", [transactional, new_context, atomic])
def test_option_that_it_has_not_is_refused_by_name(decorate) -> None:
    with pytest.raises(TypeError, match="^@[a-z_]+ has no option isolatoin: it takes"):
        decorate(isolatoin="SERIALIZABLE")
