"""What the model knows: exceptions, marks, transactions, scopes, contexts, hooks.

Values only; what happens to them is in ``model`` and ``endings``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

DATABASES = (0, 1)
OPEN, COMMITTED, ROLLED_BACK, UNKNOWN = "open", "committed", "rolled_back", "unknown"


class Problem(Exception):
    """An exception that the model foresees.

    ``causes`` are the marks that it may name (any one of them); ``hooks`` the
    numbers of the hooks in an ``AfterCommitError``. ``real`` is the exception that came.
    """

    def __init__(
        self,
        kind: str,
        *,
        causes: Iterable[Mark] = (),
        hooks: Iterable[int] = (),
        function: str | None = None,
    ) -> None:
        super().__init__(kind)
        self.kind = kind
        self.causes = list(causes)
        self.hooks = list(hooks)
        self.function = function
        self.real: BaseException | None = None


@dataclass(eq=False)
class Mark:
    """Why something may only be rolled back.

    ``own``: its own unit asked for it; ``is_broken``: by a database error.
    """

    error: Problem | None
    culprit: str | None = None
    own: bool = False
    is_broken: bool = False


@dataclass(eq=False)
class Layer:
    """A transaction's own work, or that of a savepoint in it."""

    rows: list[int] = field(default_factory=list)
    pending: list[int] = field(default_factory=list)
    error: Problem | None = None
    in_debt: bool = False


@dataclass(eq=False)
class Transaction:
    """One BEGIN ... COMMIT.

    ``begun`` once something was sent, ``wrote`` if that may be durable with its commit, ``lost``
    if pending objects went with it that were never sent.
    """

    db: int
    layers: list[Layer] = field(default_factory=lambda: [Layer()])
    begun: bool = False
    lost: bool = False
    wrote: bool = False
    fate: str = OPEN

    @property
    def top(self) -> Layer:
        return self.layers[-1]

    @property
    def used(self) -> bool:
        return self.begun or self.lost

    @property
    def errors(self) -> list[Problem]:
        return [layer.error for layer in self.layers if layer.error]

    @property
    def in_debt(self) -> bool:
        return any(layer.in_debt for layer in self.layers)

    def release(self, layer: Layer) -> None:
        """Let what is above the savepoint, and its own work, belong to the layer below."""
        place = self.layers.index(layer)
        below = self.layers[place - 1]
        for one in self.layers[place:]:
            below.rows += one.rows
            below.pending += one.pending
            below.in_debt |= one.in_debt
            below.error = below.error or one.error
        del self.layers[place:]

    def roll_back_to(self, layer: Layer) -> None:
        del self.layers[self.layers.index(layer) :]


@dataclass(eq=False)
class Frame:
    """A scope that is open: a context's own, a joined call, a block, a savepoint of the user's.

    ``held`` are a block's Databases: with its savepoint, or None where it owns the transaction.
    """

    kind: str
    name: str | None
    number: int
    covers: tuple[int, ...] = ()
    lenient: bool = False
    held: dict[int, Layer | None] = field(default_factory=dict)
    mark: Mark | None = None
    touched: set[int] = field(default_factory=set)

    def doom(self, mark: Mark) -> None:
        """The first mark stays, but for what the scope asks itself."""
        if self.mark is None or mark.own:
            self.mark = mark


@dataclass(eq=False)
class Hook:
    """A hook; ``waits_for`` are the transactions that were open at its registration."""

    number: int
    kind: str
    does: str
    db: int
    robust: bool
    owner: Frame
    waits_for: set[Transaction]

    @property
    def has_waited(self) -> bool:
        """Whether one of them was used, or still may be."""
        return any(one.used or one.fate == OPEN for one in self.waits_for)


class Context:
    """One boundary: its transactions, its scopes (itself first), its hooks and marks.

    ``mark`` dooms everything but the Databases in ``mended``, ``marks`` one transaction each.
    """

    def __init__(self, root: Frame, outer: Context | None, *, autocommit: bool) -> None:
        self.root = root
        self.outer = outer
        self.autocommit = autocommit
        self.frames = [root]
        self.enlisted: list[int] = []
        self.used: list[int] = []
        self.open: dict[int, Transaction] = {}
        self.hooks: list[Hook] = []
        self.mark: Mark | None = None
        self.mended: set[int] = set()
        self.marks: dict[int, Mark] = {}

    @property
    def transactions(self) -> set[Transaction]:
        """What a hook waits for; in autocommit there is nothing to wait for."""
        return set() if self.autocommit else set(self.open.values())

    def transaction(self, db: int) -> Transaction:
        return self.open.setdefault(db, Transaction(db))

    def owners(self, db: int) -> list[Frame]:
        """The atomic scopes of the Database, outermost first."""
        return [frame for frame in self.frames if db in frame.covers]

    def in_order_of_use(self, databases: Iterable[int]) -> list[int]:
        last = len(self.used)
        order = [*self.enlisted]
        return sorted(
            databases,
            key=lambda db: (self.used.index(db) if db in self.used else last, order.index(db)),
        )

    def innermost(self) -> Frame:
        """The innermost scope that fails, and has hooks, by itself."""
        return next(frame for frame in reversed(self.frames) if frame.kind != "join")

    def users_savepoint(self, db: int) -> bool:
        return any(frame.kind == "savepoint" and db in frame.held for frame in self.frames)

    def marks_on(self, db: int) -> list[Mark]:
        """What dooms that which is done on the Database now; the first one counts."""
        broken = self.open[db].errors if db in self.open else []
        marks = [Mark(error, is_broken=True) for error in broken]
        inner = self.frames[:0:-1]
        marks += [one.mark for one in inner if one.mark and not one.covers and db in one.held]
        marks += [one.mark for one in inner if one.mark and db in one.covers]
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

    def doom(self, mark: Mark, touched: Iterable[int]) -> None:
        """A joined call failed: mark what it belonged to, and what else it used."""
        self.doom_unit(self.innermost(), mark)
        for db in touched:
            if db in self.open and not self.marks_on(db):
                self.doom_around(db, mark, self.frames)

    def doom_unit(self, frame: Frame, mark: Mark) -> None:
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

    def end(self, transaction: Transaction, fate: str) -> None:
        if self.autocommit and fate == ROLLED_BACK and transaction.begun:
            fate = UNKNOWN  # what was sent stays
        transaction.fate = fate
        transaction.lost = any(layer.pending for layer in transaction.layers)
        self.open.pop(transaction.db, None)
        if fate == ROLLED_BACK:
            self.marks.pop(transaction.db, None)
