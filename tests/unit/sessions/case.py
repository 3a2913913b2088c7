"""Sessions of a client whose executor the tests play."""

from __future__ import annotations

from typing import Any

from pymongo.server_type import SERVER_TYPE
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txmongo._cmap.description import StreamDescription
from txmongo._ops.base import Operation
from txmongo._ops.client_sessions import Sessions
from txmongo._ops.transaction_state import Settled
from txmongo.errors import OperationFailure, PyMongoError
from txmongo.sessions import ClientSession, SessionOptions

A = ("a", 27017)
PRIMARY = StreamDescription(server_type=SERVER_TYPE.RSPrimary, max_wire_version=17, logical_session_timeout_minutes=30)


def transient(text: str = "again") -> OperationFailure:
    """An error after which the transaction may be run again."""
    return OperationFailure(text, 251, {"errorLabels": ["TransientTransactionError"]})


def unknown(code: int = 64) -> OperationFailure:
    """An error after which nobody knows whether it was committed."""
    return OperationFailure("who knows", code, {"errorLabels": ["UnknownTransactionCommitResult"], "code": code})


class Step(Operation[Any]):
    """A command of a transaction."""

    __slots__ = ()
    name = "insert"


class SessionTestCase(SynchronousTestCase):
    """A client whose executor the tests play."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.sessions = Sessions(self.clock.seconds)
        self.client: Any = object()
        #: What was executed, and what each command of that name is answered with, one after another, then with success.
        self.executed: list[Operation[Any]] = []
        self.commands: list[dict[str, Any]] = []
        self.answers: dict[str, list[Any]] = {}
        self.jitter = 1.0

    def session(self, *, defaults: Settled | None = None, **options: Any) -> ClientSession:
        """A new session."""
        return ClientSession(
            self.client,
            SessionOptions(**options),
            sessions=self.sessions,
            execute=self.execute,
            clock=self.clock,
            defaults=defaults,
            jitter=lambda: self.jitter,
        )

    def execute(self, operation: Operation[Any]) -> Deferred[Any]:
        """What the executor does, with an answer from the script; a Deferred is one for later."""
        self.executed.append(operation)
        self.sessions.route(operation)
        command = {operation.name: 1}
        use = self.sessions.begin(operation, command, PRIMARY, A)
        self.commands.append(command)
        answers = self.answers.get(operation.name)
        answer = answers.pop(0) if answers else None

        def done(result: Any) -> Any:
            if isinstance(result, PyMongoError):
                result = fail(result)
            return result

        def failed(failure: Any) -> Any:
            self.sessions.failed(operation, use, failure.value)
            return failure

        def answered(result: Any) -> Any:
            if use is not None:
                self.sessions.answered(use, {"ok": 1})
            return result

        def ended(result: Any) -> Any:
            self.sessions.end(use)
            return result

        deferred: Deferred[Any] = answer if isinstance(answer, Deferred) else succeed(answer)
        deferred.addCallback(done)
        deferred.addCallbacks(answered, failed)
        deferred.addBoth(ended)
        return deferred

    def step(self, session: ClientSession) -> Deferred[Any]:
        """Run a command in a session."""
        return self.execute(Step("db", session=session))

    @property
    def names(self) -> list[str]:
        """The names of what was executed."""
        return [operation.name for operation in self.executed]
