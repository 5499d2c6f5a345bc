"""What the model knows: exceptions, marks, transactions, scopes, hooks.

Values only; ``context`` has the context, and what happens to all of them is in ``sending``,
``ending``, ``opening``, ``leaving``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

DATABASES = (0, 1)
OPEN, COMMITTED, ROLLED_BACK, UNKNOWN = "open", "committed", "rolled_back", "unknown"


class Problem(Exception):
    """An exception that the model foresees.

    ``causes`` are the marks that it may name (any one of them), ``hooks`` the numbers of the
    hooks that failed, ``function`` who it names (None: whoever). ``real`` is what came.
    """

    def __init__(
        self,
        kind: str,
        *,
        causes: Iterable[Mark] = (),
        hooks: Iterable[int] = (),
        function: str | None = None,
        result: int | None = None,
    ) -> None:
        super().__init__(kind)
        self.kind = kind
        self.causes = list(causes)
        self.hooks = list(hooks)
        self.function = function
        self.result = result
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
    def broken(self) -> list[Mark]:
        errors = [layer.error for layer in self.layers if layer.error]
        return [Mark(error, is_broken=True) for error in errors]

    @property
    def in_debt(self) -> bool:
        return any(layer.in_debt for layer in self.layers)

    def release(self, layer: Layer) -> None:
        """Let the savepoint's work, and what is above it, belong to the layer below."""
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

    ``covers`` are the Databases that an atomic scope seals, ``held`` those that it works on:
    with its savepoint, or None where it owns the transaction. ``touched`` is what was used in it.
    """

    kind: str
    name: str | None
    is_function: bool = False
    covers: tuple[int, ...] = ()
    lenient: bool = False
    held: dict[int, Layer | None] = field(default_factory=dict)
    mark: Mark | None = None
    touched: set[int] = field(default_factory=set)

    @property
    def own(self) -> list[int]:
        return [db for db, layer in self.held.items() if layer is None]

    def doom(self, mark: Mark) -> None:
        """The first mark stays, but for what the scope asks itself."""
        if self.mark is None or mark.own:
            self.mark = mark

    def tolerates(self, problem: Problem | None) -> bool:
        """Whether its own rules commit with the exception."""
        return self.lenient and problem is not None and problem.kind == "Tolerable"


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

    def is_settled(self, ending: Iterable[Transaction] = ()) -> bool:
        """Whether nothing that it waits for is still open after ``ending``."""
        return all(one.fate != OPEN for one in self.waits_for - set(ending))


def common_fate(transactions: Iterable[Transaction], otherwise: str) -> str:
    """The fate of those that were used, ``unknown`` where it differs."""
    fates = {one.fate for one in transactions if one.used}
    if len(fates) > 1:
        return UNKNOWN
    return fates.pop() if fates else otherwise
