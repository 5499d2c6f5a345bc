"""The machine: rules that add one command to a program, which runs as it grows.

Few rules, each with many commands: Hypothesis leaves whole rules out of an example, so that some
programs never fail, some never leave a scope, and some consist of hooks.
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import ClassVar

from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from tests import server as postgres
from tests.stateful import commands as do
from tests.stateful import drawing
from tests.stateful.comparing import Run, play
from tests.stateful.stage import Theatre, on_postgres, on_sqlite


class Machine(RuleBasedStateMachine):
    """Random programs; ``theatre`` is where they run."""

    theatre: ClassVar[Theatre]

    def __init__(self) -> None:
        super().__init__()
        self.run = Run(self.theatre)

    def take(self, command: do.Command) -> None:
        if drawing.means_something(self.run.model, command):
            self.run.do(command)

    @rule(command=drawing.OPENINGS)
    def open(self, command: do.Command) -> None:
        self.take(command)

    @precondition(lambda self: self.run.model.contexts)
    @rule(command=drawing.LEAVINGS)
    def leave(self, command: do.Command) -> None:
        self.take(command)

    @precondition(lambda self: self.run.model.contexts)
    @rule(command=drawing.STATEMENTS)
    def state(self, command: do.Command) -> None:
        self.take(command)

    @precondition(lambda self: self.run.model.contexts)
    @rule(command=drawing.STATEMENTS, then=drawing.STATEMENTS)
    def state_twice(self, command: do.Command, then: do.Command) -> None:
        self.take(command)
        self.take(then)

    @precondition(lambda self: self.run.model.contexts)
    @rule(command=drawing.HARM)
    def harm(self, command: do.Command) -> None:
        self.take(command)

    @precondition(lambda self: self.run.model.contexts)
    @rule(hook=drawing.HOOKS, story=drawing.STORIES)
    def tell_a_story(self, hook: do.Command, story: list[do.Command]) -> None:
        for command in [hook, *story]:
            self.take(command)

    @precondition(lambda self: self.run.model.contexts)
    @rule(command=drawing.ENDINGS)
    def end_by_hand(self, command: do.Command) -> None:
        self.take(command)

    @precondition(lambda self: self.run.model.contexts)
    @rule(command=drawing.HOOKS, then=drawing.HOOKS)
    def register(self, command: do.Command, then: do.Command) -> None:
        self.take(command)
        self.take(then)

    def teardown(self) -> None:
        """Leave what is open; send the actor away whatever happens."""
        try:
            if not self.run.failed:
                self.run.finish()
        finally:
            self.run.close()


def machine_on(theatre: Theatre) -> type[Machine]:
    """Give the machine for one stage."""
    return type("Programs", (Machine,), {"theatre": theatre})


def replay(program: list[do.Command], backend: str = "sqlite") -> None:
    """Run one program, as a failing example prints it."""
    with contextlib.ExitStack() as stack:
        if backend == "sqlite":
            made = on_sqlite(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        else:
            server = postgres.start()
            stack.callback(server.stop)
            made = on_postgres(server)
        play(stack.enter_context(Theatre(made)), program)
