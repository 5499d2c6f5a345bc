"""The file as a stream: a bad line costs only itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from samples.ledger.csvfile import FileFormatError, read_lines
from samples.ledger.importing import LineNumbers
from samples.ledger.orders import MalformedError, Order, parse_cents, show_cents

HEADER = b"key,source,target,amount,text\n"


@pytest.mark.parametrize(
    ("text", "cents"), [("12", 1200), ("0.01", 1), (" 7.50 ", 750), ("999999999999.99", 10**14 - 1)]
)
def test_amount_is_read_in_whole_cents(text: str, cents: int) -> None:
    assert parse_cents(text) == cents


@pytest.mark.parametrize("text", ["", "1.5", "1,50", "-1", "1e3", "ten", "nan", "1.005", "٣"])
def test_amount_of_another_shape_is_malformed(text: str) -> None:
    with pytest.raises(MalformedError):
        parse_cents(text)


@pytest.mark.parametrize(
    ("cents", "text"), [(0, "0.00"), (-5, "-0.05"), (123456789, "1 234 567.89")]
)
def test_cents_are_shown_with_two_digits(cents: int, text: str) -> None:
    assert show_cents(cents) == text


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"a,x,y", "3 columns, not 5"),
        (b"a,x,y,1,t,more", "6 columns, not 5"),
        (b"a,x,y,0,", "more than 0.00"),
        (b",x,y,1,", "key is missing"),
        (b"a,,y,1,", "source is missing"),
        (b"a,x,x,1,", "the same account"),
        (b"a,x,y,1,\xff", "not UTF-8"),
        (b'a,x,y,1,"open', "no CSV"),
        (b"a\x00,x,y,1,", "key must be printable, on one line"),
        (b"a,x,y,1," + b"t" * 201, "at most 200"),
    ],
)
def test_malformed_line_says_why_and_the_next_one_is_read(
    raw: bytes, reason: str, tmp_path: Path
) -> None:
    file = tmp_path / "f.csv"
    file.write_bytes(HEADER + raw + b"\n\nb,x,y,2.50,fine\n")
    first, second = read_lines(file)
    assert isinstance(first.content, MalformedError)
    assert reason in str(first.content)
    assert (second.number, second.content) == (4, Order("b", "x", "y", 250, "fine"))


def test_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    file = tmp_path / "f.csv"
    file.write_bytes(b"\xef\xbb\xbf" + (HEADER + b'a,x,y,1,"t, u"\n').replace(b"\n", b"\r\n"))
    (line,) = read_lines(file)
    assert line.content == Order("a", "x", "y", 100, "t, u")


@pytest.mark.parametrize("content", [b"", b"a,b\n", b"\xff\n"])
def test_file_without_the_header_is_refused(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "f.csv"
    file.write_bytes(content)
    with pytest.raises(FileFormatError):
        list(read_lines(file))


def test_line_numbers_are_shown_as_ranges() -> None:
    numbers = LineNumbers()
    for number in (2, 3, 4, 9):
        numbers.add(number)
    assert (numbers.count, str(numbers)) == (4, "2-4, 9")
