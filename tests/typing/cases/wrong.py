"""What must be a type error. Each line marked ``# error`` is one, and no other is."""

from txkit import Database, atomic, new_context, transactional

db = Database("sqlite:///types.db")


@transactional  # error
def sync_function(x: int) -> int:
    return x


@atomic(db)  # error
def sync_atomic(x: int) -> int:
    return x


@new_context()  # error
def sync_new_context() -> None: ...


transactional(dict)  # error
transactional(retries=3)  # error
new_context(propagation="required")  # error
atomic("db")  # error


async def use() -> None:
    async with atomic(db) as session:
        await session.commit()
    async with atomic(db, db) as nothing:
        nothing.commit()  # error
    async with transactional() as nothing_either:
        nothing_either.commit()  # error
