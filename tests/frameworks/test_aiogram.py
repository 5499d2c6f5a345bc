"""aiogram: the handler's answer is sent when its unit has committed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from aiogram import Bot, Dispatcher, F
from aiogram.client.session.base import BaseSession
from aiogram.dispatcher.event.bases import UNHANDLED, CancelHandler, SkipHandler
from aiogram.dispatcher.event.handler import HandlerObject
from aiogram.filters import Command, CommandObject
from aiogram.handlers import MessageHandler
from aiogram.methods import SendMessage, TelegramMethod
from aiogram.types import Chat, ErrorEvent, Message, Update, User
from aiogram.webhook.aiohttp_server import SimpleRequestHandler
from aiohttp.test_utils import TestClient, TestServer
from aiohttp.web import Application

from tests.conftest import PostgresJudge
from tests.frameworks.work import Later, SideBySide, Transfer, work
from tests.notes import Boom, write
from txkit import Database, after_commit, transactional


class Telegram(BaseSession):
    """Telegram's end: it tells what is committed when something is sent to it."""

    def __init__(self, pg: PostgresJudge) -> None:
        super().__init__()
        self.pg = pg
        self.seen: list[tuple[str, list[str]]] = []

    async def make_request(
        self, bot: Bot, method: TelegramMethod[Any], timeout: int | None = None
    ) -> Any:
        assert isinstance(method, SendMessage)
        self.seen.append((method.text, await self.pg.texts()))
        return message(method.text)

    async def stream_content(self, *args: Any, **options: Any) -> AsyncGenerator[bytes, None]:
        yield b""

    async def close(self) -> None:
        pass


@pytest.fixture
def telegram(pg: PostgresJudge) -> Telegram:
    return Telegram(pg)


@pytest.fixture
def bot(telegram: Telegram) -> Bot:
    return Bot("42:TOKEN", session=telegram)


@pytest.fixture
def dispatcher() -> Dispatcher:
    return Dispatcher()


def message(text: str) -> Message:
    chat, user = Chat(id=1, type="private"), User(id=1, is_bot=False, first_name="Ann")
    return Message(message_id=1, date=datetime.now(UTC), chat=chat, from_user=user, text=text)


def update(text: str) -> Update:
    return Update(update_id=1, message=message(text))


async def add(event: Message, command: CommandObject, db: Database, **data: Any) -> None:
    """Take a message."""


@pytest.mark.parametrize("attribute", ["params", "varkw", "awaitable"])
def test_parameters_that_are_injected_are_those_of_the_undecorated_handler(attribute: str) -> None:
    decorated, plain = HandlerObject(transactional(add)), HandlerObject(add)
    assert getattr(decorated, attribute) == getattr(plain, attribute)


async def test_answer_that_is_returned_comes_after_the_commit_and_one_of_the_body_before(
    db: Database, pg: PostgresJudge, dispatcher: Dispatcher, bot: Bot, telegram: Telegram
) -> None:
    @dispatcher.message(Command("add"))
    @transactional
    async def take(event: Message, command: CommandObject, db: Database) -> SendMessage:
        text = await work(db, command.args or "")
        await event.answer("at once")
        after_commit(lambda: event.answer("by the hook"))
        return event.answer(text)

    result = await dispatcher.feed_raw_update(bot, raw("/add good"), db=db)
    await dispatcher.silent_call_request(bot, result)
    assert telegram.seen == [("at once", []), ("by the hook", ["good"]), ("good done", ["good"])]


def raw(text: str) -> dict[str, Any]:
    return update(text).model_dump(mode="json", exclude_none=True, by_alias=True)


async def test_webhook_is_answered_after_the_commit(
    db: Database, pg: PostgresJudge, dispatcher: Dispatcher, bot: Bot
) -> None:
    @dispatcher.message()
    @transactional
    async def take(event: Message) -> SendMessage:
        return SendMessage(chat_id=event.chat.id, text=await work(db, event.text or ""))

    app = Application()
    handler = SimpleRequestHandler(dispatcher, bot, handle_in_background=False)
    handler.register(app, "/hook")
    async with TestClient(TestServer(app)) as client:
        async with client.post("/hook", json=raw("good")) as response:
            assert await pg.texts() == ["good"]
            assert "good done" in await response.text()
        async with client.post("/hook", json=raw("bad")) as response:
            assert response.status == 500
    assert await pg.texts() == ["good"]


async def test_exception_rolls_back_and_goes_to_the_error_handler(
    db: Database, pg: PostgresJudge, dispatcher: Dispatcher, bot: Bot
) -> None:
    heard: list[tuple[Exception, list[str]]] = []

    @dispatcher.message()
    @transactional
    async def take(event: Message) -> None:
        await work(db, event.text or "")

    @dispatcher.error()
    @transactional
    async def handle(event: ErrorEvent) -> str:
        heard.append((event.exception, await pg.texts()))
        await write(db, "error")
        return "handled"

    assert await dispatcher.feed_update(bot, update("bad")) == "handled"
    assert [(type(error), texts) for error, texts in heard] == [(Boom, [])]
    assert await pg.texts() == ["error"]


@pytest.mark.parametrize(
    ("error", "options", "texts"),
    [
        (SkipHandler, {}, ["next"]),
        (CancelHandler, {}, []),
        (SkipHandler, {"no_rollback_for": SkipHandler}, ["tea", "next"]),
        (CancelHandler, {"no_rollback_for": CancelHandler}, ["tea"]),
    ],
)
async def test_signal_rolls_back_unless_a_rule_says_otherwise(
    db: Database,
    pg: PostgresJudge,
    dispatcher: Dispatcher,
    bot: Bot,
    error: type[Exception],
    options: dict[str, Any],
    texts: list[str],
) -> None:
    @dispatcher.message(F.text == "tea")
    @transactional(**options)
    async def take(event: Message) -> None:
        await write(db, event.text or "")
        raise error

    @dispatcher.message()
    @transactional
    async def take_next(event: Message) -> None:
        await write(db, "next")

    if error is CancelHandler:
        with pytest.raises(CancelHandler):
            await dispatcher.feed_update(bot, update("tea"))
    else:
        await dispatcher.feed_update(bot, update("tea"))
    assert await pg.texts() == texts


async def test_unhandled_message_never_reaches_a_unit(dispatcher: Dispatcher, bot: Bot) -> None:
    @dispatcher.message(F.text == "tea")
    @transactional
    async def take(event: Message) -> None:
        raise AssertionError

    assert await dispatcher.feed_update(bot, update("milk")) is UNHANDLED


async def test_handle_of_a_handler_class_and_a_bound_method_are_units(
    db: Database, pg: PostgresJudge, dispatcher: Dispatcher, bot: Bot
) -> None:
    @dispatcher.message(F.text.startswith("class"))
    class Take(MessageHandler):
        @transactional
        async def handle(self) -> str:
            return await work(self.data["db"], self.event.text or "")

    class Notes:
        @transactional
        async def take(self, event: Message, db: Database) -> str:
            return await work(db, event.text or "")

    dispatcher.message.register(Notes().take)
    assert await dispatcher.feed_update(bot, update("class"), db=db) == "class done"
    assert await dispatcher.feed_update(bot, update("method"), db=db) == "method done"
    with pytest.raises(Boom):
        await dispatcher.feed_update(bot, update("bad"), db=db)
    assert await pg.texts() == ["class", "method"]


async def test_filter_that_asks_the_database_is_a_unit_of_its_own(
    db: Database, pg: PostgresJudge, dispatcher: Dispatcher, bot: Bot
) -> None:
    @transactional
    async def remember(event: Message) -> dict[str, str]:
        await write(db, "filter")
        return {"remembered": f"{event.text}!"}

    @dispatcher.message(remember)
    @transactional
    async def take(event: Message, remembered: str) -> None:
        assert await pg.texts() == ["filter"]
        await write(db, remembered)
        raise Boom

    with pytest.raises(Boom):
        await dispatcher.feed_update(bot, update("tea"))
    assert await pg.texts() == ["filter"]


def in_a_handler(function: Callable[[str], Any], dispatcher: Dispatcher) -> None:
    @dispatcher.message()
    @transactional
    async def take(event: Message) -> Any:
        return await function(event.text or "")


async def test_updates_side_by_side_do_not_meet(
    db: Database, pg: PostgresJudge, dispatcher: Dispatcher, bot: Bot
) -> None:
    in_a_handler(SideBySide(db).work, dispatcher)
    good, bad = await asyncio.gather(
        dispatcher.feed_update(bot, update("good")),
        dispatcher.feed_update(bot, update("bad")),
        return_exceptions=True,
    )
    assert good == "good done"
    assert isinstance(bad, Boom)
    assert await pg.texts() == ["good"]


async def test_cancelled_update_is_rolled_back(
    db: Database, pg: PostgresJudge, dispatcher: Dispatcher, bot: Bot
) -> None:
    has_written = asyncio.Event()

    async def wait(text: str) -> None:
        await write(db, text)
        has_written.set()
        await asyncio.Event().wait()

    in_a_handler(wait, dispatcher)
    task = asyncio.create_task(dispatcher.feed_update(bot, update("tea")))
    async with asyncio.timeout(20):
        await has_written.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await pg.texts() == []


async def test_task_that_outlives_the_update_has_its_own_unit(
    db: Database, pg: PostgresJudge, dispatcher: Dispatcher, bot: Bot
) -> None:
    later = Later(db)

    async def start(text: str) -> None:
        await write(db, text)
        later.start(f"{text} later")

    in_a_handler(start, dispatcher)
    await dispatcher.feed_update(bot, update("tea"))
    assert await pg.texts() == ["tea"]
    await later.finish()
    assert await pg.texts() == ["tea", "tea later"]


async def test_handler_without_a_decorator_is_told(
    db: Database, pg: PostgresJudge, dispatcher: Dispatcher, bot: Bot
) -> None:
    transfer = Transfer(db, pg)

    @dispatcher.message()
    async def take(event: Message) -> None:
        await transfer.debit()
        await transfer.credit()

    with transfer.is_told("take"):
        await dispatcher.feed_update(bot, update("tea"))
    assert await pg.texts() == ["debit", "credit"]
