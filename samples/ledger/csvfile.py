"""A CSV file as a stream of lines, each an order or the reason why it is none.

A record is one physical line, so that a stray quotation mark spoils its own
line and no other. Nothing is kept: a file may be larger than the memory.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import TYPE_CHECKING

from samples.ledger.orders import MalformedError, Order, parse_cents

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COLUMNS = ["key", "source", "target", "amount", "text"]


class FileFormatError(Exception):
    """The file as a whole is not what it should be."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line: its number, its size in the file, and what it says."""

    number: int
    size_bytes: int
    content: Order | MalformedError


def read_lines(path: Path) -> Iterator[Line]:
    """Read the lines below the header; blank ones are left out.

    Raises:
        FileFormatError: the header is not ``key,source,target,amount,text``.
        OSError: the file can't be read.
    """
    with path.open("rb") as file:
        header = file.readline(1000).removeprefix(b"\xef\xbb\xbf")
        if header.strip() != ",".join(COLUMNS).encode():
            raise FileFormatError(f"{path}: the first line must be {','.join(COLUMNS)}")
        for number, raw in enumerate(file, start=2):
            if raw.strip():
                yield Line(number, len(raw), _parse(raw))


def _parse(raw: bytes) -> Order | MalformedError:
    try:
        fields = _split(raw)
        if len(fields) != len(COLUMNS):
            return MalformedError(f"{len(fields)} columns, not {len(COLUMNS)}")
        key, source, target, amount, text = fields
        return Order(key, source, target, parse_cents(amount), text)
    except MalformedError as error:
        return error


def _split(raw: bytes) -> list[str]:
    try:
        text = raw.decode().rstrip("\r\n")
        return [field.strip() for field in next(csv.reader([text], strict=True))]
    except UnicodeDecodeError:
        raise MalformedError("not UTF-8") from None
    except csv.Error as error:
        raise MalformedError(f"no CSV: {error}") from None
