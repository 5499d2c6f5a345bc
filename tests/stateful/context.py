"""The model's context, and what dooms whom in it."""

from __future__ import annotations

from collections.abc import Iterable

from tests.stateful.state import ROLLED_BACK, UNKNOWN, Frame, Hook, Mark, Transaction


class Context:
    """One boundary: its transactions, its scopes (itself first), its hooks and marks.

    ``enlisted`` are the Databases that have a session, ``used`` those that were sent to, in that
    order. ``unsaid`` are hooks that failed where no exception could tell. ``mark`` dooms everything but the Databases in ``mended``, ``marks`` one transaction each.
    """

    def __init__(self, root: Frame, outer: Context | None, *, autocommit: bool = False) -> None:
        self.root = root
        self.outer = outer
        self.autocommit = autocommit
        self.frames = [root]
        self.enlisted: list[int] = []
        self.used: list[int] = []
        self.open: dict[int, Transaction] = {}
        self.hooks: list[Hook] = []
        self.unsaid: list[int] = []
        self.mark: Mark | None = None
        self.mended: set[int] = set()
        self.marks: dict[int, Mark] = {}

    def transaction(self, db: int) -> Transaction:
        return self.open.setdefault(db, Transaction(db))

    @property
    def transactions(self) -> set[Transaction]:
        """What a hook waits for; in autocommit there is nothing to wait for."""
        return set() if self.autocommit else set(self.open.values())

    def end(self, transaction: Transaction, fate: str) -> None:
        if self.autocommit and fate == ROLLED_BACK and transaction.begun:
            fate = UNKNOWN  # what was sent stays
        transaction.fate = fate
        transaction.lost = any(layer.pending for layer in transaction.layers)
        self.open.pop(transaction.db, None)
        if fate == ROLLED_BACK:
            self.marks.pop(transaction.db, None)

    def in_order_of_use(self, databases: Iterable[int]) -> list[int]:
        unused = [db for db in self.enlisted if db not in self.used]
        order = [*self.used, *unused]
        return sorted(databases, key=order.index)

    # Scopes

    def owners(self, db: int) -> list[Frame]:
        """The atomic scopes of the Database, outermost first."""
        return [frame for frame in self.frames if db in frame.covers]

    def innermost(self) -> Frame:
        """The innermost scope that fails, and has hooks, by itself."""
        return next(frame for frame in reversed(self.frames) if frame.kind != "join")

    def users_savepoints(self, db: int) -> list[Frame]:
        """The user's own, innermost first."""
        inner = reversed(self.frames)
        return [one for one in inner if one.kind == "savepoint" and db in one.held]

    # Marks

    def marks_on(self, db: int) -> list[Mark]:
        """What dooms that which is done on the Database now; the first one counts."""
        marks = self.open[db].broken if db in self.open else []
        blocks = [frame for frame in reversed(self.frames[1:]) if db in frame.covers]
        marks += [one.mark for one in [*self.users_savepoints(db), *blocks] if one.mark]
        if self.mark and db not in self.mended:
            marks.append(self.mark)
        if db in self.marks:
            marks.append(self.marks[db])
        return marks

    def final_marks(self) -> list[Mark]:
        """What dooms the whole context; its own request goes first."""
        marks = [mark for db in self.enlisted for mark in self.marks_on(db)]
        if self.mark and not (self.mended and self.mended.issuperset(self.open)):
            marks.append(self.mark)
        marks += self.marks.values()
        return sorted(marks, key=lambda mark: not mark.own)

    def doom(self, mark: Mark, touched: Iterable[int] = ()) -> None:
        """A joined call failed: mark what it belonged to, and what else it used."""
        self.doom_unit(self.innermost(), mark)
        for db in touched:
            if db in self.open and not self.marks_on(db):
                self.doom_around(db, mark, self.frames)

    def doom_unit(self, frame: Frame, mark: Mark) -> None:
        """Mark a scope; of the context the transactions that are open, all of it if none is."""
        if frame is not self.root:
            frame.doom(mark)
        elif self.open and not mark.own:
            for db in self.open:
                self.marks.setdefault(db, mark)
        elif self.mark is None or self.mended or mark.own:
            self.mark = mark
            self.mended.clear()

    def doom_around(self, db: int, mark: Mark, frames: list[Frame]) -> None:
        """Mark the innermost unit of one Database."""
        for frame in reversed(frames[1:]):
            if db in frame.covers or db in frame.held:
                frame.doom(mark)
                return
        self.marks.setdefault(db, mark)

    def mend(self, db: int) -> None:
        """The Database's transaction was rolled back by hand."""
        self.marks.pop(db, None)
        if self.mark:
            self.mended.add(db)
