"""The decision tables are total, and say what the contract says."""

from __future__ import annotations

import itertools

import pytest

from txkit import Propagation
from txkit.policy.current_transaction import (
    CurrentTransaction,
    Entry,
    Met,
    Mode,
    decide_entry,
    parse_mode,
)
from txkit.policy.propagation import Decision, Surroundings, decide


@pytest.mark.parametrize(
    ("propagation", "within", "without", "in_autocommit"),
    [
        ("required", "JOIN", "OPEN", "OPEN"),
        ("requires_new", "OPEN", "OPEN", "OPEN"),
        ("nested", "SAVEPOINT", "OPEN", "OPEN"),
        ("mandatory", "JOIN", "REFUSE_WITHOUT", "REFUSE_WITHOUT"),
        ("supports", "JOIN", "AUTOCOMMIT", "JOIN"),
        ("not_supported", "AUTOCOMMIT", "AUTOCOMMIT", "JOIN"),
        ("never", "REFUSE_WITHIN", "AUTOCOMMIT", "JOIN"),
    ],
)
def test_propagation(propagation: str, within: str, without: str, in_autocommit: str) -> None:
    how = Propagation(propagation)
    assert decide(how, Surroundings.TRANSACTION) is Decision[within]
    assert decide(how, Surroundings.NONE) is Decision[without]
    assert decide(how, Surroundings.AUTOCOMMIT) is Decision[in_autocommit]


def test_propagation_is_total() -> None:
    for propagation, surroundings in itertools.product(Propagation, Surroundings):
        assert decide(propagation, surroundings)


@pytest.mark.parametrize("mode", [None, *CurrentTransaction])
def test_block_in_an_atomic_block_is_a_savepoint_or_refused(mode: str | None) -> None:
    expected = Entry.SAVEPOINT if mode in {None, "savepoint"} else Entry.REFUSE_CONTROL
    assert decide_entry(parse_mode(mode), Met.ATOMIC) is expected


@pytest.mark.parametrize("mode", [None, *CurrentTransaction])
def test_block_that_meets_nothing_has_its_own_transaction(mode: str | None) -> None:
    assert decide_entry(parse_mode(mode), Met.NOTHING) is Entry.OWN


@pytest.mark.parametrize(
    ("mode", "entry"),
    [
        (Mode(), Entry.COMMIT_IF_HARMLESS),
        (Mode(None, CurrentTransaction.COMMIT), Entry.COMMIT_FIRST),
        (parse_mode("commit"), Entry.COMMIT_FIRST),
        (parse_mode("rollback"), Entry.ROLLBACK_FIRST),
        (parse_mode("append"), Entry.APPEND),
        (parse_mode("savepoint"), Entry.SAVEPOINT),
        (parse_mode("raise"), Entry.REFUSE_OPEN),
    ],
)
def test_block_that_meets_an_open_transaction(mode: Mode, entry: Entry) -> None:
    assert decide_entry(mode, Met.OPEN) is entry
