"""The rules that judge how a unit ended; real responses of a real framework among them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import fastapi
import httpx
import pytest
from starlette.responses import JSONResponse, RedirectResponse

from txkit.policy.definition import define
from txkit.policy.outcome import error_commits, find_injected, result_commits

PLAIN = define()


class Base(Exception):
    pass


class Child(Base):
    pass


@pytest.mark.parametrize(
    ("options", "error", "commits"),
    [
        ({}, ValueError(), False),
        ({"no_rollback_for": ValueError}, ValueError(), True),
        ({"no_rollback_for": (KeyError, Base)}, Child(), True),
        ({"no_rollback_for": Base, "rollback_for": Child}, Child(), False),
        ({"no_rollback_for": Child, "rollback_for": Base}, Child(), True),
        ({"no_rollback_for": Child}, Base(), False),
        ({"no_rollback_for": Exception}, asyncio.CancelledError(), False),
        ({"no_rollback_for": Exception}, KeyboardInterrupt(), False),
        ({"no_rollback_for": Exception}, GeneratorExit(), False),
        ({"no_rollback_for": SystemExit}, SystemExit(0), True),
        ({"no_rollback_for": Base}, ExceptionGroup("", [Base(), Child()]), True),
        ({"no_rollback_for": Base}, ExceptionGroup("", [Base(), ValueError()]), False),
        (
            {"no_rollback_for": Base},
            ExceptionGroup("", [ExceptionGroup("", [Base()]), Base()]),
            True,
        ),
        (
            {"no_rollback_for": Exception},
            BaseExceptionGroup("", [ValueError(), asyncio.CancelledError()]),
            False,
        ),
        ({"outcome": lambda _, error: isinstance(error, Base)}, Child(), True),
        ({"outcome": lambda _, __: True}, asyncio.CancelledError(), False),
    ],
)
def test_exception_rules(options: dict, error: BaseException, commits: bool) -> None:
    assert error_commits(define(**options), error, at_boundary=True) is commits


@pytest.mark.parametrize(
    ("status", "commits"), [(303, True), (304, True), (400, False), (404, False), (500, False)]
)
def test_http_exception_commits_if_it_is_an_answer(status: int, commits: bool) -> None:
    error = fastapi.HTTPException(status)
    assert error_commits(PLAIN, error, at_boundary=True) is commits
    assert error_commits(PLAIN, error, at_boundary=False) is False


def test_class_rule_comes_before_the_http_rule() -> None:
    definition = define(no_rollback_for=fastapi.HTTPException)
    assert error_commits(definition, fastapi.HTTPException(404), at_boundary=True)


@dataclass
class Row:
    status: int = 500
    status_code: int = 500


@pytest.mark.parametrize(
    ("result", "commits"),
    [
        (None, True),
        (JSONResponse({}, 201), True),
        (RedirectResponse("/"), True),
        (JSONResponse({}, 400), False),
        (JSONResponse({}, 503), False),
        (Row(), True),
        (httpx.Response(500), True),
        (({}, 500), True),
    ],
)
def test_result_rules(result: object, commits: bool) -> None:
    assert result_commits(PLAIN, result) is commits


def test_injected_response_counts_if_it_was_changed() -> None:
    response = fastapi.Response(status_code=200)
    already = fastapi.Response(status_code=500)
    injected = find_injected((response, 1), {"already": already})
    assert result_commits(PLAIN, None, injected)
    response.status_code = 404
    assert not result_commits(PLAIN, None, injected)


def test_outcome_replaces_the_rules_for_results() -> None:
    definition = define(outcome=lambda result, error: result == "fine" and error is None)
    assert result_commits(definition, "fine")
    assert not result_commits(definition, JSONResponse({}))


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"propagation": "joined"}, ValueError),
        ({"rollback_for": "ValueError"}, TypeError),
        ({"rollback_for": [ValueError]}, TypeError),
        ({"no_rollback_for": ValueError()}, TypeError),
        ({"no_rollback_for": BaseException}, ValueError),
        ({"no_rollback_for": asyncio.CancelledError}, ValueError),
        ({"no_rollback_for": KeyError, "rollback_for": KeyError}, ValueError),
        ({"outcome": 1}, TypeError),
        ({"outcome": asyncio.sleep}, TypeError),
        ({"outcome": lambda *_: True, "rollback_for": KeyError}, ValueError),
        ({"name": ""}, ValueError),
        ({"isolation": "snapshot"}, ValueError),
        ({"isolation": "autocommit"}, ValueError),
        ({"isolation": 3}, TypeError),
        ({"read_only": 1}, TypeError),
        ({"deferrable": True}, ValueError),
        ({"deferrable": True, "isolation": "serializable"}, ValueError),
        ({"deferrable": True, "read_only": True}, ValueError),
        ({"deferrable": None}, TypeError),
        ({"timeout_s": 0}, ValueError),
        ({"timeout_s": -1}, ValueError),
        ({"timeout_s": float("inf")}, ValueError),
        ({"timeout_s": float("nan")}, ValueError),
        ({"timeout_s": "1"}, TypeError),
        ({"timeout_s": True}, TypeError),
        ({"propagation": "supports", "isolation": "serializable"}, ValueError),
        ({"propagation": "supports", "read_only": True}, ValueError),
        ({"propagation": "supports", "timeout_s": 1}, ValueError),
        ({"propagation": "never", "no_rollback_for": KeyError}, ValueError),
        ({"propagation": "not_supported", "outcome": lambda *_: True}, ValueError),
        ({"unknown": 1}, TypeError),
    ],
)
def test_senseless_option_is_refused(options: dict, error: type[Exception]) -> None:
    with pytest.raises(error):
        define(**options)
