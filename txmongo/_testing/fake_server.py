"""A MongoDB server that answers what it is told to, over the loopback interface or in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Final

import attrs
import bson
from twisted.internet import defer, endpoints, error, interfaces, protocol
from twisted.python.failure import Failure

from txmongo._testing.memory import MemoryEndpoint
from txmongo.protocol import MongoServerProtocol, Msg, Query, Reply

#: What a server says of itself that the driver takes for a standalone of MongoDB 6.0 without sessions or streaming.
HELLO: Final[Mapping[str, Any]] = {
    "isWritablePrimary": True,
    "ismaster": True,
    "helloOk": True,
    "maxBsonObjectSize": 16 * 1024 * 1024,
    "maxMessageSizeBytes": 48_000_000,
    "maxWriteBatchSize": 100_000,
    "minWireVersion": 0,
    "maxWireVersion": 17,
    "readOnly": False,
    "ok": 1.0,
}


class Behaviour(Enum):
    """What a server may do instead of answering."""

    #: Close the connection.
    HANG_UP = "hang up"
    #: Never answer this command, nor any after it on this connection.
    FALL_SILENT = "fall silent"


#: A reply document (``ok: 1`` is added where it says nothing of it); bytes to send as they are; a :class:`Behaviour`; a
#: Deferred of one of these, for later; or a function of the command's document that returns one of these.
Answer = Mapping[str, Any] | bytes | Behaviour | defer.Deferred[Any] | Callable[[Mapping[str, Any]], Any]


@attrs.frozen
class ReceivedCommand:
    """A command as it came.

    :ivar name: of the command, such as ``find``.
    :ivar database: it was meant for.
    :ivar document: the whole command, payload sections included.
    :ivar connection: which connection it came on, counted from 1.
    """

    name: str
    database: str
    document: Mapping[str, Any]
    connection: int


class FakeServer:
    """A server with a script: what a driver does when servers misbehave can be tested with it, on a fake clock too.

    .. code-block:: python

        server = FakeServer({"find": {"cursor": {"id": 0, "ns": "db.c", "firstBatch": []}}})
        server.answer("insert", Behaviour.HANG_UP, {"n": 1})
        await server.listen(reactor)
        client = ConnectionPool(server.uri)
        ...
        await server.stop()

    Commands of one connection are answered in their order, as MongoDB does. Without a script ``hello`` (also in its old
    form) is answered with :data:`HELLO`, ``ping`` and ``endSessions`` with ``ok: 1``, anything else with
    CommandNotFound (59).

    :param answers: the answer to each command of a name; :meth:`answer` gives several to be used one after another.
    :param hello: replaces or adds fields of :data:`HELLO`.
    """

    def __init__(self, answers: Mapping[str, Answer] | None = None, *, hello: Mapping[str, Any] | None = None) -> None:
        #: Every command that came, in order.
        self.received: list[ReceivedCommand] = []
        #: Refuse new connections while set.
        self.refusing = False
        #: How many connections there have been.
        self.accepted = 0
        self._script: dict[str, deque[Answer]] = {}
        self._conversations: list[_Conversation] = []
        self._port: Any = None
        greeting = {**HELLO, **(hello or {})}
        for name in ("hello", "isMaster", "ismaster"):
            self.answer(name, greeting)
        for name in ("ping", "endSessions"):
            self.answer(name, {})
        for name, answer in (answers or {}).items():
            self.answer(name, answer)

    def __repr__(self) -> str:
        return f"<FakeServer {len(self._conversations)} connections, {len(self.received)} commands received>"

    def answer(self, command: str, *answers: Answer) -> None:
        """Say how a command is to be answered from now on.

        :param command: its name.
        :param answers: used one after another, the last one for ever.
        """
        if not answers:
            raise ValueError(f"no answer to {command!r} was given")
        self._script[command] = deque(answers)

    def commands(self, name: str) -> list[Mapping[str, Any]]:
        """The documents of the commands of one name that came, in order.

        :param name: such as ``insert``.
        """
        return [command.document for command in self.received if command.name == name]

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._conversations)

    def hang_up(self) -> None:
        """Close every connection at once."""
        for conversation in list(self._conversations):
            conversation.hang_up()

    # --- over the loopback interface ---

    def listen(self, reactor: Any, *, interface: str = "127.0.0.1", port: int = 0) -> defer.Deferred[FakeServer]:
        """Listen on the loopback interface.

        :param reactor: that listens.
        :param interface: the address to listen on.
        :param port: a free one if not given.
        :returns: a Deferred that fires with this server. It fails with ``CannotListenError`` if the port is in use.
        """

        def listening(port: Any) -> FakeServer:
            self._port = port
            return self

        factory = protocol.Factory.forProtocol(self._accept)
        here: defer.Deferred[Any] = endpoints.TCP4ServerEndpoint(reactor, port, interface=interface).listen(factory)
        return here.addCallback(listening)

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens; in memory, a name that stands for it."""
        if self._port is None:
            return "fake.example", 27017
        there = self._port.getHost()
        return there.host, there.port

    @property
    def uri(self) -> str:
        """A connection string for it."""
        host, port = self.address
        return f"mongodb://{host}:{port}/"

    def stop(self) -> defer.Deferred[None]:
        """Close every connection and stop listening.

        :returns: a Deferred that fires with ``None`` when nothing of it is left in the reactor; it does not fail.
        """
        self.hang_up()
        port, self._port = self._port, None
        gone = [conversation.gone() for conversation in self._conversations]
        gone.append(defer.succeed(None) if port is None else defer.maybeDeferred(port.stopListening))
        return defer.DeferredList(gone, consumeErrors=True).addCallback(lambda _: None)

    # --- in memory ---

    def endpoint(self, clock: interfaces.IReactorTime) -> interfaces.IStreamClientEndpoint:
        """An endpoint that connects to it in memory.

        :param clock: carries the bytes.
        """
        return MemoryEndpoint(clock, self._accept)

    # --- one connection ---

    def _accept(self) -> MongoServerProtocol:
        if self.refusing:
            raise error.ConnectionRefusedError("the fake server refuses connections")
        self.accepted += 1
        return _Conversation(self, self.accepted)

    def _answer_to(self, command: ReceivedCommand) -> Any:
        self.received.append(command)
        script = self._script.get(command.name)
        if script is None:
            message = f"no such command: '{command.name}'"
            return {"ok": 0.0, "errmsg": message, "code": 59, "codeName": "CommandNotFound"}
        answer = script.popleft() if len(script) > 1 else script[0]
        return answer(command.document) if callable(answer) else answer


class _Conversation(MongoServerProtocol):
    """One connection of a fake server."""

    def __init__(self, server: FakeServer, number: int) -> None:
        super().__init__()
        self._server = server
        self._number = number
        self._unanswered: deque[Msg | Query] = deque()
        self._busy = False
        self._waiting_for_end: list[defer.Deferred[None]] = []

    def connectionMade(self) -> None:
        self._server._conversations.append(self)

    def connectionLost(self, reason: Failure = protocol.connectionDone) -> None:
        self._server._conversations.remove(self)
        waiting, self._waiting_for_end = self._waiting_for_end, []
        for deferred in waiting:
            deferred.callback(None)

    def gone(self) -> defer.Deferred[None]:
        """Fires once the connection is closed."""
        waiting: defer.Deferred[None] = defer.Deferred()
        self._waiting_for_end.append(waiting)
        return waiting

    def hang_up(self) -> None:
        """Close the connection; what has not been answered never is."""
        self._busy = True
        self.transport.abortConnection()  # type: ignore[union-attr]

    def handle_MSG(self, request: Msg) -> None:
        self._unanswered.append(request)
        self._go_on()

    def handle_QUERY(self, request: Query) -> None:
        self._unanswered.append(request)
        self._go_on()

    def _go_on(self) -> None:
        """Answer the requests in their order, as far as that can be done now."""
        while self._unanswered and not self._busy:
            request = self._unanswered.popleft()
            answer = self._server._answer_to(self._command(request))
            if isinstance(answer, defer.Deferred):
                self._busy = True
                answer.addBoth(self._later, request)
            else:
                self._send(request, answer)

    def _command(self, request: Msg | Query) -> ReceivedCommand:
        if isinstance(request, Query):
            document = dict(bson.decode(request.query))
            database = request.collection.split(".")[0]
        else:
            document = request.to_dict()
            database = document.get("$db", "")
        return ReceivedCommand(next(iter(document), ""), database, document, self._number)

    def _later(self, answer: Any, request: Msg | Query) -> None:
        self._busy = False
        self._send(request, Behaviour.HANG_UP if isinstance(answer, Failure) else answer)
        self._go_on()

    def _send(self, request: Msg | Query, answer: Any) -> None:
        if answer is Behaviour.HANG_UP:
            self.hang_up()
        elif answer is Behaviour.FALL_SILENT:
            self._busy = True
        elif isinstance(answer, bytes):
            self._write(answer)
        elif isinstance(request, Query):
            document = bson.encode({"ok": 1.0, **answer})
            self._write(Reply(response_to=request.request_id, documents=[document]).encode(self._number))
        elif request.acknowledged:
            reply = Msg.create({"ok": 1.0, **answer}, response_to=request.request_id)
            self._write(reply.encode(self._number))

    def _write(self, data: bytes) -> None:
        if self.connected:
            self.transport.write(data)  # type: ignore[union-attr]
