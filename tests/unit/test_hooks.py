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
        self._names: dict[object, str] = {}

    def add(
        self,
        name: str,
        owner: Scope | Savepoint | None = None,
        remembered: Iterable[Witness] = (),
        kind: Kind = Kind.AFTER_COMPLETION,
    ) -> None:
        def function(*_: object) -> None: ...

        self._names[function] = name
        self.ledger.register(kind, function, owner or self.root, remembered, robust=False)

    def due(self) -> list[tuple[str, Outcome]]:
        return [(self._names[hook.function], outcome) for hook, outcome in self.ledger.take_due()]

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


class TestEndByHand:
    def test_due_once_nothing_that_it_remembers_is_open(self, book: Book) -> None:
        one, two = Witness(), Witness()
        book.add("one", None, [one])
        book.add("both", None, [one, two])
        book.end_by_hand(one, COMMITTED)
        assert book.due() == [("one", COMMITTED)]
        book.end_by_hand(two, COMMITTED)
        assert book.due() == [("both", COMMITTED)]

    @pytest.mark.parametrize("first", [COMMITTED, ROLLED_BACK, UNKNOWN])
    @pytest.mark.parametrize("second", [COMMITTED, ROLLED_BACK, UNKNOWN])
    def test_outcome_is_that_of_all_it_remembers(
        self, book: Book, first: Outcome, second: Outcome
    ) -> None:
        one, two = Witness(), Witness()
        book.add("both", None, [one, two])
        book.end_by_hand(one, first)
        book.end_by_hand(two, second)
        assert book.due() == [("both", first if first is second else UNKNOWN)]

    def test_what_remembers_nothing_is_due_with_the_next_end(self, book: Book) -> None:
        book.add("hook")
        book.end_by_hand(None, ROLLED_BACK)
        assert book.due() == [("hook", ROLLED_BACK)]

    def test_what_remembers_nothing_waits_through_the_end_of_a_block(self, book: Book) -> None:
        book.add("hook")
        book.end_by_owner(None, COMMITTED)
        assert book.due() == []
        book.ledger.end(COMMITTED)
        assert book.due() == [("hook", COMMITTED)]

    def test_end_of_another_transaction_settles_nothing(self, book: Book) -> None:
        book.add("hook", None, [Witness()])
        book.end_by_hand(Witness(), COMMITTED)
        assert book.due() == []

    def test_transaction_that_sent_nothing_counts_for_nothing(self, book: Book) -> None:
        unused = Witness()
        book.add("hook", None, [unused])
        book.end_by_hand(unused, ROLLED_BACK, was_used=False)
        assert book.due() == []
        book.ledger.end(COMMITTED)
        assert book.due() == [("hook", COMMITTED)]

    def test_hooks_of_a_block_wait_for_the_block(self, book: Book) -> None:
        witness = Witness()
        block = Scope("block", atomic=True)
        book.add("block", block, [witness])
        book.end_by_hand(witness, COMMITTED)
        assert book.due() == []

    def test_handed_down_waits_for_what_is_open_then_too(self, book: Book) -> None:
        one, two = Witness(), Witness()
        block = Scope("block", atomic=True)
        book.add("block", block, [one])
        book.ledger.hand_over(block, book.root, [one, two])
        book.end_by_hand(one, COMMITTED)
        assert book.due() == []
        book.end_by_hand(two, COMMITTED)
        assert book.due() == [("block", COMMITTED)]


class TestEnd:
    @pytest.mark.parametrize("wanted", [COMMITTED, ROLLED_BACK])
    def test_nothing_used_is_what_was_wanted(self, book: Book, wanted: Outcome) -> None:
        book.add("hook")
        book.ledger.open_books(is_final=True)
        book.ledger.end(wanted)
        assert book.due() == [("hook", wanted)]

    def test_nothing_is_due_before_the_last_transaction_has_ended(self, book: Book) -> None:
        one, two = Witness(), Witness()
        book.add("one", None, [one])
        book.add("two", None, [two])
        book.ledger.open_books(is_final=True)
        book.end_by_owner(one, COMMITTED)
        assert book.due() == []
        book.end_by_owner(two, COMMITTED)
        assert book.due() == []
        book.ledger.end(COMMITTED)
        assert book.due() == [("one", COMMITTED), ("two", COMMITTED)]

    def test_ends_that_differ_are_unknown_to_all(self, book: Book) -> None:
        """A partial commit: also for a hook from before the second Database was used."""
        one, two = Witness(), Witness()
        book.add("nothing")
        book.add("one", None, [one])
        book.add("both", None, [one, two])
        book.ledger.open_books(is_final=True)
        book.end_by_owner(one, COMMITTED)
        book.end_by_owner(two, ROLLED_BACK)
        book.ledger.end(ROLLED_BACK)
        assert book.due() == [("nothing", UNKNOWN), ("one", UNKNOWN), ("both", UNKNOWN)]

    def test_end_counts_together_with_what_ended_by_hand_before(self, book: Book) -> None:
        one, two = Witness(), Witness()
        book.add("both", None, [one, two])
        book.end_by_hand(one, COMMITTED)
        book.add("since", None, [two])
        book.ledger.open_books(is_final=True)
        book.end_by_owner(two, ROLLED_BACK)
        book.ledger.end(ROLLED_BACK)
        assert book.due() == [("both", UNKNOWN), ("since", ROLLED_BACK)]

    def test_dropping_forgets_all_and_counts_it(self, book: Book) -> None:
        block = Scope("block", atomic=True)
        book.add("waits")
        book.add("due", block)
        book.ledger.settle(block, COMMITTED)
        assert book.ledger.drop() == 2
        book.ledger.end(COMMITTED)
        assert book.due() == []
        assert book.ledger.drop() == 0
