"""The ledger of hooks: what the end of a transaction, or of the boundary, makes due."""

from __future__ import annotations

import pytest

from tests.unit.test_hooks import COMMITTED, ROLLED_BACK, UNKNOWN, Book
from txkit._core.hooks import Outcome, Witness
from txkit._core.scope import Scope


@pytest.fixture
def book() -> Book:
    return Book()


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
