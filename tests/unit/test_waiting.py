"""Who waits for a task: asked by the task itself, while its parent waits for it in every usual way."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

import anyio
import pytest
import uvloop

from txkit._core.waiting import suspended_on

Tasks = set[asyncio.Task[Any]]
Child = Callable[[], Coroutine[Any, Any, None]]

SECOND = 60.0
"""What nobody here waits out."""


async def step() -> None:
    """Let every other task run until it waits for something."""
    for _ in range(5):
        await asyncio.sleep(0)


async def awaits(child: Child) -> None:
    await asyncio.create_task(child())


async def awaits_itself(child: Child) -> None:
    await child()


async def gathers(child: Child) -> None:
    await asyncio.gather(child(), step())


async def gathers_all_results(child: Child) -> None:
    await asyncio.gather(step(), child(), return_exceptions=True)


async def gathers_a_gathering(child: Child) -> None:
    await asyncio.gather(step(), asyncio.gather(step(), asyncio.gather(child(), step())))


async def groups(child: Child) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(child())
        group.create_task(step())


async def groups_late(child: Child) -> None:
    """The body of the group still runs when the child begins."""
    async with asyncio.TaskGroup() as group:
        group.create_task(child())
        await asyncio.sleep(0)


async def waits_for_all(child: Child) -> None:
    await asyncio.wait({asyncio.create_task(child()), asyncio.create_task(step())})


async def waits_with_a_limit(child: Child) -> None:
    await asyncio.wait_for(child(), SECOND)


async def waits_for_a_task_with_a_limit(child: Child) -> None:
    await asyncio.wait_for(asyncio.create_task(child()), SECOND)


async def shields(child: Child) -> None:
    await asyncio.shield(asyncio.create_task(child()))


async def shields_in_a_gathering(child: Child) -> None:
    await asyncio.gather(asyncio.shield(child()), step())


async def groups_by_anyio(child: Child) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(child)
        group.start_soon(step)


async def limits_by_anyio(child: Child) -> None:
    with anyio.fail_after(SECOND):
        await awaits(child)


async def tells_by_callback(child: Child) -> None:
    """As a framework may do it, and as txkit's own end does."""
    ended = asyncio.get_running_loop().create_future()

    def tell(future: asyncio.Future[None], _task: asyncio.Task[None]) -> None:
        future.set_result(None)

    asyncio.create_task(child()).add_done_callback(partial(tell, ended))
    await ended


async def waits_through_others(child: Child) -> None:
    async def between() -> None:
        await groups(child)

    await asyncio.gather(awaits(partial(asyncio.wait_for, between(), SECOND)), step())


WAITING = [
    awaits,
    awaits_itself,
    gathers,
    gathers_all_results,
    gathers_a_gathering,
    groups,
    groups_late,
    waits_for_all,
    waits_with_a_limit,
    waits_for_a_task_with_a_limit,
    shields,
    shields_in_a_gathering,
    groups_by_anyio,
    limits_by_anyio,
    tells_by_callback,
    waits_through_others,
]


async def forgets(child: Child) -> None:
    """The task is kept as the manual says, and not awaited."""
    kept: Tasks = set()
    task = asyncio.create_task(child())
    kept.add(task)
    task.add_done_callback(kept.discard)
    other = asyncio.get_running_loop().create_future()
    task.add_done_callback(lambda _: other.cancelled() or other.set_result(None))
    await Elsewhere().until(task)


async def takes_the_first(child: Child) -> None:
    tasks = {asyncio.create_task(child()), asyncio.create_task(step_longer())}
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.wait_for(Elsewhere().until(*tasks), SECOND)


async def takes_the_first_failure(child: Child) -> None:
    tasks = {asyncio.create_task(child()), asyncio.create_task(step_longer())}
    await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)


async def waits_for_a_while(child: Child) -> None:
    await asyncio.wait({asyncio.create_task(child())}, timeout=SECOND)


async def takes_as_they_come(child: Child) -> None:
    for first in asyncio.as_completed([child(), step_longer()]):
        await first
        break


async def waits_for_an_event(child: Child) -> None:
    event = asyncio.Event()

    def tell(_: object) -> None:
        event.set()

    asyncio.create_task(child()).add_done_callback(tell)
    await event.wait()


async def takes_from_a_queue(child: Child) -> None:
    queue: asyncio.Queue[Any] = asyncio.Queue()
    asyncio.create_task(child()).add_done_callback(queue.put_nowait)
    await queue.get()


async def step_longer() -> None:
    for _ in range(4):
        await step()


class Elsewhere:
    """Waits for tasks without awaiting them: by looking."""

    async def until(self, *tasks: asyncio.Task[Any]) -> None:
        while not all(task.done() for task in tasks):
            await asyncio.sleep(0)


NOT_WAITING = [
    forgets,
    takes_the_first,
    takes_the_first_failure,
    waits_for_a_while,
    takes_as_they_come,
    waits_for_an_event,
    takes_from_a_queue,
]


def _eager() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined, unused-ignore]
    return loop


LOOPS: list[Callable[[], asyncio.AbstractEventLoop]] = [
    asyncio.new_event_loop,
    uvloop.new_event_loop,
    *([_eager] if sys.version_info >= (3, 12) else []),
]
on_every_loop = pytest.mark.parametrize("new_loop", LOOPS)


def run(new_loop: Callable[[], asyncio.AbstractEventLoop], main: Awaitable[None]) -> None:
    async def entry() -> None:
        async with asyncio.timeout(10):
            await main

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(entry())


async def _seen_from_inside(way: Callable[[Child], Awaitable[None]]) -> tuple[Tasks, Any, Any]:
    """Give who waits for the child, by its own look; its parent; and itself."""
    seen: list[tuple[Tasks, Any]] = []

    async def child() -> None:
        await step()
        here = asyncio.current_task()
        assert here is not None
        seen.append((suspended_on({here}), here))
        await step()

    parent = asyncio.create_task(way(child))  # type: ignore[arg-type]
    await parent
    await step()
    await step()
    ((tasks, here),) = seen
    return tasks, parent, here


@on_every_loop
@pytest.mark.parametrize("way", WAITING, ids=lambda way: way.__name__)
def test_parent_that_waits_is_found(way: Any, new_loop: Any) -> None:
    async def main() -> None:
        tasks, parent, here = await _seen_from_inside(way)
        assert parent in tasks
        assert here in tasks

    run(new_loop, main())


@on_every_loop
@pytest.mark.parametrize("way", NOT_WAITING, ids=lambda way: way.__name__)
def test_parent_that_can_go_on_is_not_found(way: Any, new_loop: Any) -> None:
    async def main() -> None:
        tasks, parent, here = await _seen_from_inside(way)
        assert parent not in tasks
        assert here in tasks

    run(new_loop, main())


@on_every_loop
def test_nobody_waits_for_a_task_alone(new_loop: Any) -> None:
    async def main() -> None:
        gate = asyncio.Event()
        alone = asyncio.create_task(gate.wait())
        beside = asyncio.create_task(gate.wait())
        await step()
        assert suspended_on({alone}) == {alone}
        assert suspended_on({alone, beside}) == {alone, beside}
        gate.set()
        await asyncio.gather(alone, beside)
        assert suspended_on({alone}) == {alone}

    run(new_loop, main())
