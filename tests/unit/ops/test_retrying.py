"""``txmongo._ops.executor``: what is tried again, and the sessions of it, on a real topology and pool in memory."""

from __future__ import annotations

from random import Random
from typing import Any

from pymongo.server_type import SERVER_TYPE
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.ops.wires import Look, Ping, Wire, Write, member, set_topology
from tests.unit.ops.writing import target
from tests.unit.reading import session_of
from tests.unit.sdam.fakes import A, Connections, primary
from txmongo._cmap.description import StreamDescription
from txmongo._cmap.pool import Pool
from txmongo._ops.bulk_write import BatchUnconfirmed, InsertBatch
from txmongo._ops.executor import Executor
from txmongo._pymongo import add_error_label
from txmongo._settings import parse_settings
from txmongo.errors import (
    AutoReconnect,
    InvalidOperation,
    NotPrimaryError,
    OperationFailure,
    ServerSelectionTimeoutError,
)
from txmongo.types import Address

OK = {"ok": 1}
#: An answer after which a read is sent again, and with the label a write too.
SHUTTING_DOWN = {"ok": 0, "code": 91, "errmsg": "the server is in quiesce mode"}
LABELLED = {"ok": 0, "code": 64, "errmsg": "x", "errorLabels": ["RetryableWriteError"]}
OVERLOADED = {"ok": 0, "code": 462, "errmsg": "busy", "errorLabels": ["SystemOverloadedError", "RetryableError"]}
REFUSED = {"ok": 0, "code": 13, "errmsg": "not authorized"}


class Highest(Random):
    """A jitter that shortens nothing."""

    def random(self) -> float:
        """The longest pause."""
        return 1.0


class RetryingCase(SynchronousTestCase):
    """A replica set of one, whose monitor answers at once as long as the test does not say otherwise."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.server_type: int = SERVER_TYPE.RSPrimary
        self.make()

    def make(self, **keywords: Any) -> None:
        """A client."""
        self.wires: list[Wire] = []
        self.connecting: list[Deferred[Any]] = []
        self.slow_connects = False
        self.monitors = Connections(self.clock)
        settings = parse_settings(
            "mongodb://a/?replicaSet=rs", serverMonitoringMode="poll", heartbeatFrequencyMS=10_000, **keywords
        )
        self.topology = set_topology(settings, self.clock, self.monitors, self.connect)
        self.executor = Executor(self.topology, settings, self.clock, random=Highest())
        self.addCleanup(self.topology.close)
        self.topology.open()
        self.found()

    def connect(self, address: Address) -> Deferred[Any]:
        """Open a connection for the pool, at once or when the test says so."""
        if self.slow_connects:
            self.connecting.append(Deferred(lambda _: None))
            return self.connecting[-1]
        return succeed(self.new_wire())

    def new_wire(self) -> Any:
        """What the connector gives for a new connection."""
        wire = Wire()
        wire.protocol.seconds = self.clock.seconds
        self.wires.append(wire)
        timeout = None if self.server_type == SERVER_TYPE.Standalone else 30
        return wire.protocol, StreamDescription(
            max_wire_version=17, server_type=self.server_type, logical_session_timeout_minutes=timeout
        )

    def found(self) -> None:
        """The monitor finds the server, again if it was lost."""
        self.clock.advance(0.5)
        if self.monitors.waiting(A):
            self.monitors.open(A, member(primary(), hosts=["a:27017"]))
        else:
            self.monitors.protocols[A][-1].answer(member(primary(), hosts=["a:27017"]))

    @property
    def pool(self) -> Pool:
        """The server's pool."""
        return self.topology.servers[A].pool

    def sent(self) -> dict[str, Any]:
        """The one command that was written on the newest connection since the last call."""
        [command] = self.wires[-1].read()
        return command

    def answer(self, document: dict[str, Any]) -> None:
        """Answer the command that was read."""
        self.wires[-1].answer(document)

    def idle(self, sessions: int = 1) -> None:
        """Nothing is left out: of connections, of those who wait, of sessions; so many are kept."""
        self.assertEqual((self.pool.operation_count, self.pool.waiting_count), (0, 0))
        kept = self.executor.sessions.pool
        self.assertEqual((kept.in_use, len(kept)), (0, sessions))


class ImplicitSessionTests(RetryingCase):
    """Which session an operation gets that was given none."""

    def test_after_check_out(self) -> None:
        """It is taken when there is a connection to send it on, not before."""
        self.slow_connects = True
        waiting = [self.executor.execute(Ping("db")) for _ in range(5)]
        self.assertEqual(self.executor.sessions.pool.in_use, 0)
        for connecting in self.connecting:
            connecting.callback(self.new_wire())
        self.assertEqual(self.executor.sessions.pool.in_use, len(self.wires))
        lsids = []
        while len(lsids) < len(waiting):
            for wire in self.wires:
                for command in wire.read():
                    lsids.append(command["lsid"]["id"])
                    wire.answer(OK)
        for each in waiting:
            self.successResultOf(each)
        # Who gets a connection that somebody gives back finds that one's session free.
        self.assertEqual(len(set(lsids)), len(self.wires))
        self.idle(len(self.wires))

    def test_handed_on(self) -> None:
        """On one connection, used by one operation at a time, one is enough, however many operations wait."""
        self.make(maxPoolSize=1, pipelining=False)
        waiting = [self.executor.execute(Write("db")) for _ in range(5)]
        lsids = set()
        for each in waiting:
            lsids.add(self.sent()["lsid"]["id"])
            self.answer(OK)
            self.successResultOf(each)
        self.assertEqual(len(lsids), 1)
        self.idle()

    def test_one_after_another(self) -> None:
        """Operations that follow one another use the same one."""
        lsids = []
        for operation in (Ping("db"), Look("db"), Write("db"), Ping("db")):
            done = self.executor.execute(operation)
            lsids.append(self.sent()["lsid"])
            self.answer(OK)
            self.successResultOf(done)
            self.idle()
        self.assertEqual(lsids, lsids[:1] * 4)

    def test_last_in_first_out(self) -> None:
        """Of those that are free the one that was used last is taken."""
        for _ in range(2):
            self.executor.execute(Ping("db"))
        wires = list(self.wires)
        commands = {id(wire): wire.read() for wire in wires}
        [first, second] = [(wire, command) for wire in wires for command in commands[id(wire)]]
        second[0].answer(OK)
        first[0].answer(OK)
        self.idle(2)
        self.executor.execute(Ping("db"))
        [command] = [command for wire in wires for command in wire.read()]
        self.assertEqual(command["lsid"], first[1]["lsid"])

    def test_unacknowledged(self) -> None:
        """A write that nobody hears the end of has none."""
        self.successResultOf(self.executor.execute(Write("db", acknowledged=False)))
        self.assertNotIn("lsid", self.sent())
        self.idle(0)

    def test_standalone(self) -> None:
        """A server that names no timeout of sessions has none."""
        self.server_type = SERVER_TYPE.Standalone
        done = self.executor.execute(Write("db"))
        command = self.sent()
        self.assertEqual((command.get("lsid"), command.get("txnNumber")), (None, None))
        self.answer(OK)
        self.successResultOf(done)
        self.idle(0)


class OnceMoreTests(RetryingCase):
    """Reads and writes that fail are sent a second time if that may help, and only then."""

    def test_lost(self) -> None:
        """When the connection is lost they go on another, a write under the same session and number."""
        for operation in (Look("db"), Write("db")):
            self.make()
            done = self.executor.execute(operation)
            first = self.sent()
            self.wires[-1].lose()
            self.assertNoResult(done)
            self.found()
            again = self.sent()
            self.assertEqual(len(self.wires), 2)
            self.assertEqual((first["lsid"], first.get("txnNumber")), (again["lsid"], again.get("txnNumber")))
            self.assertEqual("txnNumber" in again, isinstance(operation, Write))
            self.answer(OK)
            self.assertEqual(self.successResultOf(done)[0], OK)
            # The first copy may still be running under that session: it is not used again.
            self.idle(0)

    def test_answered(self) -> None:
        """When the server answers that they should, they are sent again at once, and their session is kept."""
        for operation, error in ((Look("db"), {**SHUTTING_DOWN, "code": 189}), (Write("db"), LABELLED)):
            self.make()
            done = self.executor.execute(operation)
            first = self.sent()
            self.answer(error)
            if not self.wires[-1].transport.value():
                self.found()
            again = self.sent()
            self.assertEqual((first["lsid"], first.get("txnNumber")), (again["lsid"], again.get("txnNumber")))
            self.answer(OK)
            self.successResultOf(done)
            self.idle()

    def test_twice(self) -> None:
        """A second failure of the same kind is the caller's."""
        for operation in (Look("db"), Write("db")):
            self.make()
            done = self.executor.execute(operation)
            self.sent()
            self.wires[-1].lose()
            self.found()
            self.sent()
            self.wires[-1].lose()
            self.failureResultOf(done, AutoReconnect)
            self.assertEqual(len(self.wires), 2)
            self.idle(0)

    def test_other_answers(self) -> None:
        """Any other answer is the caller's at once; a write needs the label, whatever the code."""
        for operation, error, kind in (
            (Look("db"), REFUSED, OperationFailure),
            (Look("db"), LABELLED, OperationFailure),
            (Write("db"), REFUSED, OperationFailure),
            (Write("db"), {**SHUTTING_DOWN, "code": 11600}, NotPrimaryError),
        ):
            self.make()
            done = self.executor.execute(operation)
            self.sent()
            self.answer(error)
            self.failureResultOf(done, kind)
            self.idle()

    def test_others(self) -> None:
        """What is neither is not sent again."""
        done = self.executor.execute(Ping("db"))
        self.wires[-1].lose()
        self.failureResultOf(done, AutoReconnect)
        self.idle(0)

    def test_switched_off(self) -> None:
        """retryReads and retryWrites switch it off; a write then has no number."""
        for operation in (Look("db"), Write("db")):
            self.make(retryReads=False, retryWrites=False)
            done = self.executor.execute(operation)
            self.assertNotIn("txnNumber", self.sent())
            self.wires[-1].lose()
            error = self.failureResultOf(done, AutoReconnect).value
            self.assertFalse(error.has_error_label("RetryableWriteError"))
            self.idle(0)

    def test_numbers(self) -> None:
        """Each write has a number of its own, higher than those before."""
        numbers = []
        for _ in range(3):
            done = self.executor.execute(Write("db"))
            numbers.append(self.sent()["txnNumber"])
            self.answer(LABELLED)
            self.assertEqual(self.sent()["txnNumber"], numbers[-1])
            self.answer(OK)
            self.successResultOf(done)
        self.assertEqual(numbers, [1, 2, 3])

    def test_nothing_written(self) -> None:
        """If the second try did nothing, the caller hears of the first."""
        done = self.executor.execute(Write("db"))
        self.sent()
        self.answer({**LABELLED, "errmsg": "first"})
        self.sent()
        self.answer({**REFUSED, "errorLabels": ["RetryableWriteError", "NoWritesPerformed"]})
        self.assertIn("first", str(self.failureResultOf(done, OperationFailure).value))
        self.idle()

    def test_never_to_a_standalone(self) -> None:
        """A write is not sent again where it would be done twice; the caller hears of the first failure."""
        done = self.executor.execute(Write("db"))
        self.sent()
        self.server_type = SERVER_TYPE.Standalone
        self.wires[-1].lose()
        self.found()
        self.assertEqual(self.wires[-1].read(), [])
        self.assertEqual(len(self.wires), 2)
        self.clock.advance(0)
        self.assertNotIn("support", str(self.failureResultOf(done, AutoReconnect).value))
        self.idle(0)

    def test_no_server_for_it(self) -> None:
        """If no server is found for the second try, the caller hears of the first failure."""
        done = self.executor.execute(Write("db"))
        self.sent()
        self.wires[-1].lose()
        self.clock.advance(31)
        error = self.failureResultOf(done, AutoReconnect).value
        self.assertNotIsInstance(error, ServerSelectionTimeoutError)
        self.idle(0)

    def test_closed(self) -> None:
        """A client that was closed in the meantime tries nothing again."""
        done = self.executor.execute(Look("db"))
        self.sent()
        self.executor.close()
        self.wires[-1].lose()
        self.failureResultOf(done, AutoReconnect)
        self.idle(0)

    def test_given_session(self) -> None:
        """With a session of the application's it is the same, until the session ends meanwhile."""
        session = session_of(self.executor.sessions)
        for end in (False, True):
            done = self.executor.execute(Write("db", session=session))
            first = self.sent()
            if end:
                session.finish()
            self.wires[-1].lose()
            if not end:
                self.found()
                again = self.sent()
                self.assertEqual((first["lsid"], first["txnNumber"]), (again["lsid"], again["txnNumber"]))
                self.answer(OK)
                self.successResultOf(done)
                self.assertEqual(self.executor.sessions.pool.in_use, 1)
        self.failureResultOf(done, AutoReconnect, InvalidOperation)
        self.idle(0)


class UnconfirmedBatchTests(RetryingCase):
    """A batch of a bulk write whose write concern failed in a way that another try may heal."""

    REPLY = {
        "ok": 1,
        "n": 1,
        "writeConcernError": {"code": 91, "errmsg": "shutting down"},
        "errorLabels": ["RetryableWriteError"],
    }

    def test_healed(self) -> None:
        """It is sent again as it was; the second reply counts."""
        done = self.executor.execute(InsertBatch(target(), [{"_id": 1}]))
        first = self.sent()
        self.answer(self.REPLY)
        again = self.sent()
        for field in ("lsid", "txnNumber", "documents"):
            self.assertEqual(first[field], again[field])
        self.answer({"ok": 1, "n": 1})
        self.assertEqual(self.successResultOf(done), {"ok": 1, "n": 1})
        self.idle()

    def test_not_healed(self) -> None:
        """If that is so again, the error holds the whole reply."""
        done = self.executor.execute(InsertBatch(target(), [{"_id": 1}]))
        for _ in range(2):
            self.sent()
            self.answer(self.REPLY)
        self.assertEqual(self.failureResultOf(done, BatchUnconfirmed).value.reply, self.REPLY)
        self.idle()


class OverloadTests(RetryingCase):
    """A server that says that it is overloaded is asked again after a pause, twice at most."""

    def test_back_off(self) -> None:
        """The pauses grow, for reads, writes and commands alike."""
        for operation in (Look("db"), Write("db"), Ping("db")):
            self.make()
            done = self.executor.execute(operation)
            first = self.sent()
            for pause in (0.2, 0.4):
                self.answer(OVERLOADED)
                self.clock.advance(pause - 0.01)
                self.assertEqual(self.wires[-1].read(), [])
                self.clock.advance(0.011)
                again = self.sent()
                self.assertEqual((first["lsid"], first.get("txnNumber")), (again["lsid"], again.get("txnNumber")))
            self.answer(OK)
            self.successResultOf(done)
            self.idle()

    def test_limit(self) -> None:
        """After the second retry the error is the caller's."""
        done = self.executor.execute(Look("db"))
        for _ in range(3):
            self.sent()
            self.answer(OVERLOADED)
            self.clock.advance(10)
        self.assertEqual(self.failureResultOf(done, OperationFailure).value.code, 462)
        self.assertEqual(self.wires[-1].read(), [])
        self.idle()

    def test_named_pause(self) -> None:
        """The server may name another beginning of the pauses."""
        self.executor.execute(Look("db"))
        self.sent()
        self.answer({**OVERLOADED, "baseBackoffMS": 1000})
        self.clock.advance(1.99)
        self.assertEqual(self.wires[-1].read(), [])
        self.clock.advance(0.011)
        self.sent()

    def test_not_to_be_repeated(self) -> None:
        """Without the label that allows it there is no retry."""
        done = self.executor.execute(Look("db"))
        self.sent()
        self.answer({**OVERLOADED, "errorLabels": ["SystemOverloadedError"]})
        self.failureResultOf(done, OperationFailure)
        self.idle()

    def test_takes_no_connection(self) -> None:
        """One that takes no new connection gets the same pauses; those that it has go on serving."""
        self.executor.execute(Ping("db")).addErrback(lambda _: None)
        self.sent()
        self.slow_connects = True
        done = self.executor.execute(Ping("db", exclusive=True))
        for pause in (0.2, 0.4):
            self.refuse()
            self.assertEqual((self.connecting, self.pool.generation), ([], 0))
            self.clock.advance(pause - 0.01)
            self.assertEqual(self.connecting, [])
            self.clock.advance(0.011)
        self.connecting[0].callback(self.new_wire())
        self.sent()
        self.answer(OK)
        self.successResultOf(done)
        self.assertTrue(self.topology.description.has_writable_server())

    def test_never_takes_a_connection(self) -> None:
        """After the second retry the caller hears of it, with the labels."""
        self.slow_connects = True
        done = self.executor.execute(Ping("db"))
        for _ in range(3):
            self.refuse()
            self.clock.advance(1)
        error = self.failureResultOf(done, AutoReconnect).value
        self.assertTrue(error.has_error_label("SystemOverloadedError") and error.has_error_label("RetryableError"))
        self.assertEqual(self.connecting, [])
        self.idle(0)

    def refuse(self) -> None:
        """The server closes the connection that is being opened, as the connector tells of it."""
        error = AutoReconnect("a:27017: connection closed during the greeting")
        for label in ("SystemOverloadedError", "RetryableError"):
            add_error_label(error, label)
        self.connecting.pop(0).errback(error)


class EndTests(RetryingCase):
    """The client's end."""

    def test_in_back_off(self) -> None:
        """An operation in its pause ends with the last error, and nothing is waited for any more."""
        operations = []
        for _ in range(2):
            operations.append(self.executor.execute(Write("db")))
            self.sent()
            self.answer(OVERLOADED)
        done, cancelled = operations
        done.addErrback(lambda failure: [failure, cancelled.cancel()][0])
        self.executor.close()
        self.assertEqual(self.failureResultOf(done, OperationFailure).value.code, OVERLOADED["code"])
        self.failureResultOf(cancelled, CancelledError)
        self.assertEqual(len(self.executor.pauses), 0)
        self.idle(2)


class CancelTests(RetryingCase):
    """An operation may be cancelled wherever it is; nothing is left out then."""

    def test_in_back_off(self) -> None:
        """In the pause: at once, nothing is sent any more."""
        done = self.executor.execute(Write("db"))
        self.sent()
        self.answer(OVERLOADED)
        done.cancel()
        self.failureResultOf(done, CancelledError)
        self.idle()
        self.clock.advance(10)
        self.assertEqual(self.wires[-1].read(), [])

    def test_in_first_selection(self) -> None:
        """While it waits for a server for the first time: no session was taken."""
        self.executor.execute(Ping("db")).addErrback(lambda _: None)
        self.wires[-1].lose()
        done = self.executor.execute(Write("db"))
        done.cancel()
        self.failureResultOf(done, CancelledError)
        self.idle(0)

    def test_in_second_selection(self) -> None:
        """While it waits for a server for the second try: the session of the first is forgotten."""
        done = self.executor.execute(Write("db"))
        self.sent()
        self.wires[-1].lose()
        done.cancel()
        self.failureResultOf(done, CancelledError)
        self.idle(0)
        self.found()
        self.assertEqual(len(self.wires), 1)

    def test_in_second_check_out(self) -> None:
        """While it waits for a connection for the second try."""
        done = self.executor.execute(Write("db"))
        self.sent()
        self.slow_connects = True
        self.wires[-1].lose()
        self.found()
        self.assertEqual(len(self.connecting), 1)
        done.cancel()
        self.failureResultOf(done, CancelledError)
        self.idle(0)

    def test_in_flight(self) -> None:
        """In flight, in the first and in the second try: the server may still be at it, so the session is forgotten."""
        for tries in (1, 2):
            self.make()
            done = self.executor.execute(Write("db"))
            for _ in range(tries - 1):
                self.sent()
                self.answer(LABELLED)
            self.sent()
            done.cancel()
            self.failureResultOf(done, CancelledError)
            self.idle(0)
            self.answer(OK)
            self.idle(0)
            self.assertEqual(self.pool.available_count, 1)

    def test_in_flight_after_back_off(self) -> None:
        """After a pause, with a session of the application's: its use ends once."""
        session = session_of(self.executor.sessions)
        done = self.executor.execute(Write("db", session=session))
        self.sent()
        self.answer(OVERLOADED)
        self.clock.advance(1)
        self.sent()
        done.cancel()
        self.failureResultOf(done, CancelledError)
        self.answer(OK)
        self.assertEqual(session._uses, 0)
        session.finish()
        self.idle(0)

    def test_with_session(self) -> None:
        """With a session of the application's: it is dirty from then on, and usable all the same."""
        session = session_of(self.executor.sessions)
        done = self.executor.execute(Write("db", session=session))
        lsid = self.sent()["lsid"]
        done.cancel()
        self.failureResultOf(done, CancelledError)
        self.answer(OK)
        done = self.executor.execute(Write("db", session=session))
        self.assertEqual(self.sent()["lsid"], lsid)
        self.answer(OK)
        self.successResultOf(done)
        session.finish()
        self.idle(0)
