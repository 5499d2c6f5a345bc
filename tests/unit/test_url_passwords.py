"""No password leaves a URL: hypothesis looks for one that does."""

from __future__ import annotations

import traceback

from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import make_url

from txkit import Database
from txkit.database import url as urls

PG = "postgresql://user:pw@h:5433/shop"
SECRETS = st.text(alphabet=st.characters(codec="ascii", categories=("L", "N", "P", "S", "Zs")))
"""What goes between the marks that a password starts and ends with."""


@given(SECRETS, SECRETS)
def test_no_password_in_a_refusal_or_repr(before: str, after: str) -> None:
    """Scenario: a password with a mark in it, raw, in every place of a URL, good or bad.

    Outcome: whatever becomes of the URL, nobody sees the mark.
    """
    for raw in (f"{before}s3cr3t{after}", f"s3cr3t{after}", f"{before}s3cr3t"):
        for text in (
            f"postgresql://user:{raw}@h/d",
            f"postgresql://user:{raw}@h:port/d",
            f"postgresql+psycopg2://user:{raw}@h/d",
            f"mysql://user:{raw}@h/d",
            f"sqlite://user:{raw}@h/d",
            f"postgresql:/user:{raw}@h/d",
            f"user:{raw}@h/d",
        ):
            _assert_kept(text)


def _assert_kept(text: str) -> None:
    refusal = None
    try:
        db = Database(text)
    except (ValueError, TypeError) as error:
        refusal = error
    else:
        assert "s3cr3t" not in f"{db!r} {db} {db.name} {db.host}"
    if refusal is not None:
        assert "s3cr3t" not in "".join(traceback.format_exception(refusal))
        assert refusal.__context__ is None
        assert refusal.__cause__ is None


@given(SECRETS, SECRETS)
def test_password_in_the_query_moves_to_where_it_is_hidden(before: str, after: str) -> None:
    secret = f"{before}s3cr3t{after}"
    url = urls.parse_url(make_url(PG).update_query_dict({"password": secret, "ssl": "require"}))
    assert url.password == secret
    assert "s3cr3t" not in f"{url!r} {url.render_as_string()}"
    assert dict(url.query) == {"ssl": "require"}
