"""What must be a type error. Each line marked ``# error`` is one, and no other is."""

from collections.abc import Iterator

from txkit import (
    Database,
    after_commit,
    after_completion,
    after_rollback,
    atomic,
    before_commit,
    new_context,
    transactional,
)

db = Database("sqlite:///types.db")


@transactional  # error
def sync_function(x: int) -> int:
    return x


@transactional  # error
def sync_generator() -> Iterator[int]:
    yield 1


@atomic(db)  # error
def sync_atomic(x: int) -> int:
    return x


@new_context()  # error
def sync_new_context() -> None: ...


transactional(dict)  # error
transactional(retries=3)  # error
new_context(propagation="required")  # error
atomic("db")  # error

transactional(isolation=3)  # error
transactional(read_only="yes")  # error
transactional(deferrable=None)  # error
transactional(timeout_s="1")  # error
transactional(timeout=1)  # error
new_context(read_only="yes")  # error
new_context(timeout_s="1")  # error


def hook() -> None: ...


def hook_with_argument(x: int) -> None: ...


before_commit(hook_with_argument)  # error
before_commit(hook, robust=True)  # error
before_commit()  # error
after_commit(hook_with_argument)  # error
after_commit(hook, True)  # error
after_commit(hook, robust="yes")  # error
after_commit(True)  # error
after_commit(robust=True)(hook_with_argument)  # error
after_rollback(hook_with_argument)  # error
after_rollback(hook, robust=True)  # error
after_completion(hook)  # error
after_completion(3)  # error


async def use() -> None:
    async with atomic(db) as session:
        await session.commit()
    async with atomic(db, db) as nothing:
        nothing.commit()  # error
    async with transactional() as nothing_either:
        nothing_either.commit()  # error
