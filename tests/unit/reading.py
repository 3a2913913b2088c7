"""What the tests of cursors, databases and reading operations share: an executor that waits for the test to answer."""

from __future__ import annotations

from typing import Any

from bson.codec_options import DEFAULT_CODEC_OPTIONS, CodecOptions
from bson.int64 import Int64
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import ReadPreference
from pymongo.write_concern import WriteConcern
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txmongo._cmap.description import StreamDescription
from txmongo._ops.base import Operation
from txmongo._ops.client_sessions import Sessions
from txmongo._ops.leftovers import Leftovers
from txmongo._ops.session_state import SessionState, SessionUse
from txmongo._ops.timeouts import TimeLimit
from txmongo._ops.transaction_state import Settled
from txmongo._scope import Scope
from txmongo.cursor import Cursor
from txmongo.database import Database

SERVER = StreamDescription(max_wire_version=17)
ADDRESS = ("db.example", 27017)


class Context:
    """Where a reply comes from.

    :ivar use: the operation's use of a session.
    """

    address = ADDRESS
    description = SERVER

    def __init__(self, use: SessionUse | None = None) -> None:
        self.use = use


CONTEXT = Context()


def sent(operation: Operation[Any], server: StreamDescription = SERVER) -> dict[str, Any]:
    """The command as the server reads it, without ``$db``."""
    document: dict[str, Any] = operation.encode(operation.build(server), server).to_dict()
    return document


class Held:
    """An operation that was executed and not answered yet."""

    def __init__(self, operation: Operation[Any], command: dict[str, Any]) -> None:
        self.operation = operation
        self.command = command
        self.cancelled = False
        self.deferred: Deferred[Any] = Deferred(self._cancelled)

    def _cancelled(self, _deferred: Deferred[Any]) -> None:
        self.cancelled = True


class HeldExecutor:
    """Builds and encodes what is executed, and answers when the test says so.

    :ivar sends: whether commands are sent at once; else they wait for a connection.
    :ivar reachable: whether the server is known to the topology.
    """

    #: What it knows of itself.
    server = SERVER

    def __init__(self) -> None:
        self.held: list[Held] = []
        self.commands: list[dict[str, Any]] = []
        self.operations: list[Operation[Any]] = []
        self.sends = True
        self.reachable = True
        #: The context of the next replies.
        self.context = CONTEXT
        self.clock = Clock()
        self.limits: list[TimeLimit] = []
        self.sessions = Sessions(self.clock.seconds)

    def execute(self, operation: Operation[Any]) -> Deferred[Any]:
        """As the executor does it, but for the I/O."""
        command = operation.build(self.server)
        if self.sends:
            operation.encode(command, self.server)
        held = Held(operation, command)
        self.held.append(held)
        self.commands.append(command)
        self.operations.append(operation)
        return held.deferred

    def execute_within(self, operation: Operation[Any], limit: TimeLimit) -> Deferred[Any]:
        """As the executor does it for an operation whose time is limited; the test says when it is up."""
        self.limits.append(limit)
        return self.execute(operation)

    def execute_timed(self, timeout: float, operation: Operation[Any]) -> Deferred[Any]:
        """As the executor does it for an operation of an object that has a ``timeoutMS``."""
        return self.execute_within(operation, TimeLimit.after(self.clock, timeout))

    def reaches(self, address: Any) -> bool:
        """Whether a server can be sent a command at once."""
        return self.reachable

    def names(self) -> list[str]:
        """The names of all commands so far."""
        return [next(iter(command)) for command in self.commands]

    def answer(self, reply: dict[str, Any] | None = None) -> None:
        """The server's reply to the oldest command."""
        held = self.held.pop(0)
        try:
            result = held.operation.parse({"ok": 1, **(reply or {})}, self.context)
        except Exception as error:
            held.deferred.errback(error)
        else:
            held.deferred.callback(result)

    def fail(self, error: Exception) -> None:
        """The oldest command fails."""
        self.held.pop(0).deferred.errback(error)

    def first_batch(self, *documents: Any, cursor_id: int = 0, namespace: str = "test.things") -> None:
        """The oldest command is answered with a cursor."""
        self.answer({"cursor": {"firstBatch": list(documents), "id": cursor_id, "ns": namespace}})

    def next_batch(self, *documents: Any, cursor_id: int = 0, namespace: str = "test.things") -> None:
        """The oldest command, a getMore, is answered."""
        self.answer({"cursor": {"nextBatch": list(documents), "id": cursor_id, "ns": namespace}})


class HeldClient(Scope[dict[str, Any]]):
    """What databases, collections and cursors need of a client."""

    _codec_options: CodecOptions[Any] = DEFAULT_CODEC_OPTIONS
    _read_preference = ReadPreference.PRIMARY
    _write_concern = WriteConcern()
    _read_concern = ReadConcern()
    _timeout: float | None = None
    _encryption: Any = None

    def __init__(self) -> None:
        self._executor: Any = HeldExecutor()
        self.executor: HeldExecutor = self._executor
        self._execute, self._sessions = self.executor.execute, self.executor.sessions
        self.clock = self.executor.clock
        self._leftovers = self.leftovers = Leftovers(self.executor.execute, self.clock, self.executor.execute_within)


def session_of(sessions: Sessions, *, in_transaction: bool = False) -> SessionState:
    """A session that an application could hold, of the client that these sessions are of."""
    session = SessionState(sessions, sessions.pool, causally_consistent=True, reads_snapshot=False)
    if in_transaction:
        session.transaction.start(Settled(), Int64(1))
    return session


def held_database(name: str = "test") -> tuple[Database[dict[str, Any]], HeldClient]:
    """A database over an executor that waits for the test to answer."""
    client = HeldClient()
    database: Any = Database(client, name)  # type: ignore[arg-type]  # the part of a client that is used
    return database, client


class CursorCase(SynchronousTestCase):
    """A collection over an executor that waits for the test to answer."""

    def setUp(self) -> None:
        self.database, self.client = held_database()
        self.executor = self.client.executor
        self.things = self.database["things"]
        self.results: list[Any] = []

    def command_of(self, cursor: Cursor[Any]) -> dict[str, Any]:
        """What the cursor sends first."""
        cursor.next_batch().addErrback(lambda failure: failure.trap(CancelledError))
        return self.executor.commands[-1]

    def killed(self) -> list[list[int]]:
        """The ids of each killCursors so far."""
        return [command["cursors"] for command in self.executor.commands if "killCursors" in command]
