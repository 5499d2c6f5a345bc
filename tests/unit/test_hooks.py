"""The ledger of hooks, by itself: no database, no event loop."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from txkit._core.hooks import Kind, Ledger, Outcome, Witness, combined
from txkit._core.scope import Savepoint, Scope

COMMITTED, ROLLED_BACK, UNKNOWN = Outcome.COMMITTED, Outcome.ROLLED_BACK, Outcome.UNKNOWN


class Book:
    """A ledger whose hooks are told apart by name."""

    def __init__(self) -> None:
        self.root = Scope("root", atomic=False)
        self.ledger = Ledger(self.root)
        self.names: dict[object, str] = {}

    def add(
        self,
        name: str,
        owner: Scope | Savepoint | None = None,
        remembered: Iterable[Witness] = (),
        kind: Kind = Kind.AFTER_COMPLETION,
    ) -> None:
        def function(*_: object) -> None: ...

        self.names[function] = name
        self.ledger.register(kind, function, owner or self.root, remembered, robust=False)

    def due(self) -> list[tuple[str, Outcome]]:
        return [(self.names[hook.function], outcome) for hook, outcome in self.ledger.take_due()]

    def end_by_hand(self, witness: Witness | None, outcome: Outcome, was_used: bool = True) -> None:
        self.ledger.transaction_ended(witness, outcome, was_used=was_used, by_hand=True)

    def end_by_owner(self, witness: Witness | None, outcome: Outcome) -> None:
        self.ledger.transaction_ended(witness, outcome, was_used=True, by_hand=False)


@pytest.fixture
def book() -> Book:
    return Book()


@pytest.mark.parametrize(
    ("outcomes", "together"),
    [
        ([], "otherwise"),
        (["committed"], "committed"),
        (["rolled_back"], "rolled_back"),
        (["unknown"], "unknown"),
        (["committed", "committed"], "committed"),
        (["committed", "rolled_back"], "unknown"),
        (["rolled_back", "rolled_back"], "rolled_back"),
        (["committed", "unknown"], "unknown"),
        (["rolled_back", "unknown"], "unknown"),
    ],
)
@pytest.mark.parametrize("otherwise", list(Outcome))
def test_outcomes_that_differ_are_unknown(
    outcomes: list[str], together: str, otherwise: Outcome
) -> None:
    expected = otherwise if together == "otherwise" else Outcome(together)
    assert combined([Outcome(one) for one in outcomes], otherwise) is expected


@pytest.mark.parametrize("outcome", list(Outcome))
@pytest.mark.parametrize("kind", list(Kind))
def test_kind_and_outcome_decide_whether_a_due_hook_runs(
    book: Book, kind: Kind, outcome: Outcome
) -> None:
    book.add("hook", kind=kind)
    book.ledger.end(outcome)
    runs = (
        kind is Kind.AFTER_COMPLETION
        or (kind is Kind.AFTER_COMMIT and outcome is COMMITTED)
        or (kind is Kind.AFTER_ROLLBACK and outcome is ROLLED_BACK)
    )
    assert book.due() == ([("hook", outcome)] if runs else [])


class TestOwner:
    def test_settling_takes_what_the_unit_owns_and_nothing_else(self, book: Book) -> None:
        block, other = Scope("block", atomic=True), Scope("other", atomic=True)
        book.add("root")
        book.add("block", block)
        book.add("other", other)
        book.ledger.settle(block, ROLLED_BACK)
        assert book.due() == [("block", ROLLED_BACK)]
        assert book.due() == []
        book.ledger.settle(block, COMMITTED)
        assert book.due() == []

    def test_handed_over_is_settled_with_the_new_owner(self, book: Book) -> None:
        savepoint, block = Savepoint(2), Scope("block", atomic=True)
        book.add("savepoint", savepoint)
        book.ledger.hand_over(savepoint, block, [])
        book.ledger.settle(savepoint, COMMITTED)
        assert book.due() == []
        book.ledger.settle(block, ROLLED_BACK)
        assert book.due() == [("savepoint", ROLLED_BACK)]

    def test_order_is_that_of_registration_whoever_owned_it(self, book: Book) -> None:
        savepoint = Savepoint(1)
        book.add("first", savepoint)
        book.add("second")
        book.add("third", savepoint)
        book.add("fourth")
        book.ledger.hand_over(savepoint, book.root, [])
        book.ledger.end(COMMITTED)
        assert [name for name, _ in book.due()] == ["first", "second", "third", "fourth"]

    def test_due_at_different_moments_keeps_the_order_until_it_is_taken(self, book: Book) -> None:
        block = Scope("block", atomic=True)
        book.add("context", None, [witness := Witness()])
        book.add("block", block)
        book.ledger.settle(block, COMMITTED)
        book.end_by_owner(witness, COMMITTED)
        assert [name for name, _ in book.due()] == ["context", "block"]

    def test_block_is_told_what_became_of_its_own_transactions(self, book: Book) -> None:
        block = Scope("block", atomic=True)
        book.end_by_hand(None, ROLLED_BACK)
        book.add("block", block)
        book.ledger.open_books()
        book.end_by_owner(None, COMMITTED)
        book.ledger.settle_unit(block, ROLLED_BACK)
        assert book.due() == [("block", COMMITTED)]

    def test_block_whose_transactions_differ_is_told_unknown(self, book: Book) -> None:
        block = Scope("block", atomic=True)
        book.add("block", block)
        book.ledger.open_books()
        book.end_by_owner(None, COMMITTED)
        book.end_by_owner(None, ROLLED_BACK)
        book.ledger.settle_unit(block, ROLLED_BACK)
        assert book.due() == [("block", UNKNOWN)]


class TestBefore:
    """Which before_commit hooks a commit takes: those that it settles, once."""

    def taken(
        self, book: Book, owner: Scope, ending: list[Witness] | None, *, by_hand: bool = False
    ) -> list[str]:
        hooks = book.ledger.take_before(owner, ending, by_hand=by_hand)
        assert book.ledger.take_before(owner, ending, by_hand=by_hand) == []
        return [book.names[hook.function] for hook in hooks]

    @pytest.fixture
    def open_ones(self, book: Book) -> tuple[Witness, Witness]:
        one, two = Witness(), Witness()
        kind = Kind.BEFORE_COMMIT
        book.add("nothing", kind=kind)
        book.add("one", None, [one], kind)
        book.add("both", None, [one, two], kind)
        book.add("after", None, [one], Kind.AFTER_COMMIT)
        return one, two

    def test_end_of_the_boundary_takes_all(
        self, book: Book, open_ones: tuple[Witness, Witness]
    ) -> None:
        assert self.taken(book, book.root, None) == ["nothing", "one", "both"]

    def test_commit_by_hand_takes_what_waits_for_nothing_else(
        self, book: Book, open_ones: tuple[Witness, Witness]
    ) -> None:
        one, two = open_ones
        assert self.taken(book, book.root, [one], by_hand=True) == ["nothing", "one"]
        assert self.taken(book, book.root, [two, one], by_hand=True) == ["both"]

    def test_block_takes_its_own_and_what_waits_for_its_transactions(
        self, book: Book, open_ones: tuple[Witness, Witness]
    ) -> None:
        one, _ = open_ones
        block, other = Scope("block", atomic=True), Scope("other", atomic=True)
        book.add("block", block, kind=Kind.BEFORE_COMMIT)
        book.add("other", other, kind=Kind.BEFORE_COMMIT)
        assert self.taken(book, block, [one]) == ["one", "block"]
