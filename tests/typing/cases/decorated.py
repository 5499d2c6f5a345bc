"""What users write. Each revealed type must be the one of the same thing undecorated.

``test_types.py`` strips the decorators' lines from this file and compares.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from typing import TypeVar, reveal_type

from sqlalchemy.ext.asyncio import AsyncSession

from txkit import (
    Database,
    Propagation,
    after_commit,
    after_completion,
    after_rollback,
    atomic,
    before_commit,
    new_context,
    transactional,
)

T = TypeVar("T")

db = Database("sqlite:///types.db")
other = Database("sqlite:///other.db")


@transactional
async def bare(x: int, *, y: str = "") -> list[int]:
    return [x]


@transactional(propagation="mandatory", name="named")
async def with_options(x: int, /) -> None: ...


@transactional(isolation="serializable", read_only=True, deferrable=True, timeout_s=2.5)
async def with_characteristics(x: int) -> int:
    return x


@transactional(propagation=Propagation.NESTED, read_only=None, timeout_s=None, isolation=None)
async def nested(x: int = 0) -> None: ...


@atomic
async def bare_atomic(*parts: str, **more: int) -> str:
    return ""


@atomic(db)
async def atomic_one(value: T) -> T:
    return value


@atomic(db, other, current_transaction="append")
async def atomic_two(x: int) -> int:
    return x


@new_context
async def bare_new_context() -> AsyncSession:
    raise NotImplementedError


@new_context(no_rollback_for=(ValueError, KeyError))
async def new_context_with_options(x: bytes) -> bytes:
    return x


@new_context(isolation="REPEATABLE READ", read_only=False, deferrable=False, timeout_s=1)
async def new_context_with_characteristics(x: str) -> str:
    return x


class Service:
    @transactional
    async def method(self, x: int) -> str:
        return str(x)

    @atomic(db)
    async def atomic_method(self, x: int) -> str:
        return str(x)

    @classmethod
    @transactional
    async def inside_classmethod(cls, x: int) -> str:
        return str(x)

    @transactional(name="c")
    @classmethod
    async def outside_classmethod(cls, x: int) -> str:
        return str(x)

    @staticmethod
    @new_context
    async def inside_staticmethod(x: int) -> str:
        return str(x)

    @atomic
    @staticmethod
    async def outside_staticmethod(x: int) -> str:
        return str(x)


async def hooks() -> None:
    @before_commit
    def bare_hook() -> int:
        return 1

    @before_commit
    async def bare_async_hook() -> None: ...

    @after_commit
    async def commit_hook(x: int = 0, *more: str) -> list[int]:
        return [x]

    @after_commit()
    def called_hook() -> None: ...

    @after_commit(robust=True)
    async def robust_hook() -> str:
        return ""

    @after_rollback
    async def rollback_hook() -> None: ...

    @after_completion
    async def completion_hook(outcome: str) -> None: ...

    @after_completion
    def sync_completion_hook(outcome: object, /) -> bool:
        return True

    @after_commit
    @transactional
    async def decorated_hook() -> int:
        return 1

    reveal_type(bare_hook)
    reveal_type(bare_async_hook)
    reveal_type(commit_hook)
    reveal_type(called_hook)
    reveal_type(robust_hook)
    reveal_type(rollback_hook)
    reveal_type(completion_hook)
    reveal_type(sync_completion_hook)
    reveal_type(decorated_hook)


@transactional
async def stream(x: int) -> AsyncIterator[int]:
    yield x


@atomic(db)
async def atomic_stream(x: int) -> AsyncGenerator[int, str]:
    reveal_type((yield x))


@new_context(timeout_s=1)
async def stream_of_its_own(one: T) -> AsyncGenerator[T, None]:
    yield one


async def use() -> None:
    reveal_type(stream)
    reveal_type(atomic_stream)
    reveal_type(stream_of_its_own)
    reveal_type([one async for one in stream(1)])
    reveal_type(bare)
    reveal_type(with_options)
    reveal_type(with_characteristics)
    reveal_type(nested)
    reveal_type(new_context_with_characteristics)
    reveal_type(bare_atomic)
    reveal_type(atomic_one)
    reveal_type(atomic_two)
    reveal_type(bare_new_context)
    reveal_type(new_context_with_options)
    reveal_type(Service.method)
    reveal_type(Service().method)
    reveal_type(Service().atomic_method)
    reveal_type(Service.inside_classmethod)
    reveal_type(Service().inside_classmethod)
    reveal_type(Service.outside_classmethod)
    reveal_type(Service().outside_classmethod)
    reveal_type(Service.inside_staticmethod)
    reveal_type(Service.outside_staticmethod)
    reveal_type(Service().outside_staticmethod)
    reveal_type(await bare(1, y="a"))
