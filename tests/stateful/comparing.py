"""A program on a stage: every command in the model and by the actor, compared after each."""

from __future__ import annotations

from tests.stateful import commands as do
from tests.stateful.actor import RAISED, Actor, HookFailure, Reply
from tests.stateful.model import Model
from tests.stateful.stage import Theatre
from tests.stateful.state import DATABASES, Problem

_SOUNDS_ALIKE = {
    "DBAPIError": ("DBAPIError", "IntegrityError", "OperationalError", "ProgrammingError")
}


class Disagreement(AssertionError):
    """Model and txkit differ; the text holds the program, ready for ``replay``."""

    def __init__(self, text: str, program: list[do.Command]) -> None:
        super().__init__(text)
        self.program = program


class Run:
    """Runs a program, one command at a time; ``close`` in the end, whatever happened."""

    def __init__(self, theatre: Theatre) -> None:
        self.program: list[do.Command] = []
        self.failed = False
        self._theatre = theatre
        self._stage = theatre.stage
        self._stage.next_example()
        self.model = Model(sqlite=self._stage.backend == "sqlite")
        self._actor = theatre.loop.run_until_complete(self._engage())

    def do(self, command: do.Command) -> None:
        """Do the command, and let what it meets leave as many scopes as it says."""
        self.program.append(command)
        self._theatre.loop.run_until_complete(self._do(len(self.program), command))

    def finish(self) -> None:
        """Leave every scope normally; then nothing may be left open."""
        while self.model.contexts:
            self.do(do.End())
        left = self._theatre.loop.run_until_complete(self._stage.checked_out())
        self._agree(0, left, "connections that are still checked out")

    def close(self) -> None:
        """Send the actor away, and with it what a failed example may have left behind."""
        self._theatre.loop.run_until_complete(self._actor.dismiss())
        if self.failed:
            self._theatre.loop.run_until_complete(self._stage.renew())

    async def _engage(self) -> Actor:
        return Actor(self._stage, self.model.refrain)

    async def _do(self, step: int, command: do.Command) -> None:
        levels = command.levels
        leaving: Problem | None = None
        if isinstance(command, do.End) and command.error:
            leaving = Problem(command.error)
            leaving.real = RAISED[command.error](step)
        while True:
            foreseen = self.model.do(step, command, leaving)
            real = leaving.real if leaving else None
            reply = await self._actor.obey(step, command, real)
            await self._compare(foreseen, reply)
            if not (foreseen and levels and self.model.contexts):
                return
            leaving, command, levels = foreseen, do.End(), levels - 1

    async def _compare(self, foreseen: Problem | None, reply: Reply) -> None:
        difference = compare_errors(foreseen, reply.error)
        if difference:
            self._fail(difference, reply.error)
        self._agree(self.model.log, self._actor.log, "hooks that ran")
        rows = await self._stage.rows()
        for db in DATABASES:
            what = f"committed rows of database {db}"
            self._agree(sorted(self.model.rows[db]), rows[db], what)
        opened = tuple(map(self.model.in_transaction, DATABASES))
        self._agree(opened, reply.in_transaction, "in_transaction()")

    def _agree(self, foreseen: object, found: object, what: str) -> None:
        if foreseen != found:
            self._fail(f"{what}: the model says {foreseen}, found {found}")

    def _fail(self, words: str, cause: BaseException | None = None) -> None:
        self.failed = True
        lines = "".join(f"    {command!r},\n" for command in self.program)
        message = (
            f"after step {len(self.program)} on {self._stage.backend}: {words}\n"
            f"replay([\n{lines}], {self._stage.backend!r})"
        )
        raise Disagreement(message, self.program) from cause


def play(theatre: Theatre, program: list[do.Command]) -> None:
    """Run a whole program, and leave what is still open."""
    run = Run(theatre)
    try:
        for command in program:
            run.do(command)
        run.finish()
    finally:
        run.close()


def compare_errors(foreseen: Problem | None, found: BaseException | None) -> str | None:
    """Say how they differ; bind the exception to what foresaw it."""
    if foreseen is None:
        return None if found is None else f"the model says no exception, {found!r} came"
    if foreseen.real is not None:
        same = found is foreseen.real
        return None if same else f"the model says that {foreseen.real!r} leaves, {found!r} came"
    kinds = _SOUNDS_ALIKE.get(foreseen.kind, (foreseen.kind,))
    if type(found).__name__ not in kinds:
        return f"the model says {foreseen.kind}, {found!r} came"
    foreseen.real = found
    if foreseen.kind == "HookFailure":
        foreseen.hooks = []
        return None
    if foreseen.hooks:
        parts = getattr(found, "exceptions", ())
        failed = [part.args[0] for part in parts if isinstance(part, HookFailure)]
        if failed != foreseen.hooks or len(failed) != len(parts):
            return f"the model says that the hooks {foreseen.hooks} failed, {parts} came"
    if foreseen.causes:
        told = [(mark.error.real if mark.error else None) for mark in foreseen.causes]
        cause = found.__cause__  # type: ignore[union-attr]
        if not any(cause in origins(one) for one in told):
            return f"the model says {found!r} from one of {told}, its cause is {found.__cause__!r}"
    return None


def origins(error: BaseException | None) -> list[BaseException | None]:
    """Give an exception and what it came from; the driver's is what SQLAlchemy's wraps."""
    chain = [error]
    while error is not None:
        error = getattr(error, "orig", None) or error.__cause__
        chain.append(error)
    return chain if chain[0] is None else chain[:-1]
