"""A program on a stage: every command in the model and by the actor, compared after each."""

from __future__ import annotations

from tests.stateful import commands as do
from tests.stateful.actor import RAISED, Actor, HookFailure, Reply
from tests.stateful.model import Model
from tests.stateful.stage import Theatre
from tests.stateful.state import DATABASES, Mark, Problem

_BY_THE_DATABASE = ("DBAPIError", "IntegrityError", "OperationalError", "ProgrammingError")


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
            self._fail(f"the model says {difference}, {reply.error!r} came", reply.error)
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
        backend = self._stage.backend
        place = f"after step {len(self.program)} on {backend}"
        message = f"{place}: {words}\nreplay([\n{lines}], {backend!r})"
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
    """Say what was foreseen if something else came; bind what came to what foresaw it."""
    if foreseen is None:
        return None if found is None else "no exception"
    if foreseen.real is not None:
        return None if found is foreseen.real else f"that {foreseen.real!r} leaves unchanged"
    kinds = _BY_THE_DATABASE if foreseen.kind == "DBAPIError" else (foreseen.kind,)
    if found is None or type(found).__name__ not in kinds:
        return foreseen.kind
    foreseen.real = found
    return _compare_hooks(foreseen, found) or _compare_names(foreseen, found)


def _compare_hooks(foreseen: Problem, found: BaseException) -> str | None:
    if isinstance(found, HookFailure):
        failed = [found.args[0]]
    else:
        parts = getattr(found, "exceptions", ())
        failed = [part.args[0] if isinstance(part, HookFailure) else part for part in parts]
    if failed != foreseen.hooks:
        return f"that of the hooks {foreseen.hooks} failed, not {failed}"
    if getattr(found, "result", foreseen.result) != foreseen.result:
        return f"that the result was {foreseen.result}"
    return None


def _compare_names(foreseen: Problem, found: BaseException) -> str | None:
    function = _last_part(getattr(found, "function", foreseen.function))
    if foreseen.function and function != foreseen.function:
        return f"that it names {foreseen.function}, not {function}"
    if foreseen.causes:
        told = [mark for mark in foreseen.causes if found.__cause__ in _origins(mark)]
        if not told:
            return f"it from one of {[mark.error and mark.error.real for mark in foreseen.causes]}"
        names = {_culprit(mark) for mark in told}
        culprit = _last_part(getattr(found, "culprit", None))
        if None not in names and culprit not in names:
            return f"that it blames one of {names}, not {culprit}"
    return None


def _last_part(name: str | None) -> str | None:
    return name and name.rpartition(".")[2]


def _origins(mark: Mark) -> list[BaseException | None]:
    """Give a mark's exception and what it came from; SQLAlchemy's wraps the driver's."""
    error = mark.error and mark.error.real
    chain: list[BaseException | None] = [error]
    while error is not None:
        error = getattr(error, "orig", None) or error.__cause__
        chain.append(error)
    return chain if len(chain) == 1 else chain[:-1]


def _culprit(mark: Mark) -> str | None:
    """Give who is to blame, None where that is somebody else's name or none of ours."""
    is_handed_on = mark.error is not None and mark.error.kind == "UnexpectedRollbackError"
    return None if is_handed_on or mark.own else mark.culprit
