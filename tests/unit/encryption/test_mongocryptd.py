"""mongocryptd: when it is started, by a reactor that keeps what it was told, and what is said where it is not there."""

from __future__ import annotations

import os
import sys
from typing import Any

import bson
from pymongo.monitoring import ServerHeartbeatFailedEvent
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.clients import ClientCase
from txmongo._encryption.mongocryptd import Mongocryptd, Spawner, spawn_command
from txmongo.connection import ConnectionPool
from txmongo.encryption import AutoEncryptionOpts
from txmongo.errors import AutoReconnect, ConfigurationError, OperationFailure, ServerSelectionTimeoutError
from txmongo.testing import Behaviour

FAILED = ServerHeartbeatFailedEvent(0.0, OSError(), ("localhost", 27020), False)
LOCAL = {"local": {"key": bytes(96)}}


class Processes:
    """The part of a reactor that starts processes.

    :ivar started: the protocol, the executable and the arguments of each.
    :ivar refusal: raised instead, if there is one.
    """

    def __init__(self) -> None:
        self.started: list[tuple[Any, str, list[str]]] = []
        self.refusal: Exception | None = None

    def spawnProcess(self, protocol: Any, executable: str, args: Any, env: Any, childFDs: Any) -> None:
        """Start one, whose ends lead nowhere, in this environment."""
        assert env is None
        assert os.path.samestat(os.fstat(childFDs[0]), os.stat(os.devnull))
        assert list(childFDs) == [0, 1, 2]
        assert len(set(childFDs.values())) == 1
        if self.refusal is not None:
            raise self.refusal
        self.started.append((protocol, executable, list(args)))

    def end(self, status: int | None, signal: int | None = None) -> None:
        """The oldest one ends."""
        protocol, _, _ = self.started.pop(0)
        protocol.processEnded(Failure(ProcessDone(0) if status == 0 else ProcessTerminated(status, signal)))


class SpawnerTests(SynchronousTestCase):
    """When it is started."""

    def setUp(self) -> None:
        """Nothing is started yet."""
        self.processes = Processes()
        self.spawner = Spawner(self.processes, [sys.executable, "--an=argument"])

    def test_wanted(self) -> None:
        """It is started when it is wanted and not there, with its arguments."""
        self.spawner.failed(FAILED)
        self.assertEqual(self.processes.started, [])
        with self.spawner.wanted():
            self.assertEqual(self.processes.started, [])
            self.spawner.failed(FAILED)
        ((_, executable, arguments),) = self.processes.started
        self.assertEqual((executable, arguments), (sys.executable, [sys.executable, "--an=argument"]))
        self.spawner.failed(FAILED)
        self.assertEqual(len(self.processes.started), 1)

    def test_once(self) -> None:
        """It is started once for all who want it, and not again while it runs."""
        with self.spawner.wanted():
            with self.spawner.wanted():
                self.spawner.failed(FAILED)
                self.spawner.failed(FAILED)
            self.spawner.failed(FAILED)
        self.assertEqual(len(self.processes.started), 1)

    def test_ended(self) -> None:
        """One that ends at once is not started again for who waits, but for who comes later."""
        with self.spawner.wanted():
            self.spawner.failed(FAILED)
            self.processes.end(2)
            self.spawner.failed(FAILED)
            self.assertEqual(self.processes.started, [])
        self.assertIn("has ended with exit code 2", self.spawner.outcome)
        with self.spawner.wanted():
            self.spawner.failed(FAILED)
        self.assertEqual(len(self.processes.started), 1)
        self.assertTrue(self.spawner.outcome.endswith(f"{sys.executable} was started"))

    def test_outcome(self) -> None:
        """How it ended is told: by itself, or by a signal."""
        for status, signal, told in ((0, None, "exit code 0"), (None, 9, "signal 9")):
            with self.spawner.wanted():
                self.spawner.failed(FAILED)
            self.processes.end(status, signal)
            self.assertTrue(self.spawner.outcome.endswith(told), self.spawner.outcome)

    def test_no_executable(self) -> None:
        """An executable that is not there is named, and so is its option; nothing is started."""
        spawner = Spawner(self.processes, ["txmongo-no-such-mongocryptd"])
        with spawner.wanted():
            spawner.failed(FAILED)
        self.assertEqual(self.processes.started, [])
        self.assertIn("mongocryptd_spawn_path: there is no executable 'txmongo-no-such-mongocryptd'", spawner.outcome)

    def test_refused(self) -> None:
        """What the system says when it cannot start a process is told."""
        self.processes.refusal = OSError("no processes left")
        with self.spawner.wanted():
            self.spawner.failed(FAILED)
        self.assertIn("could not be started: no processes left", self.spawner.outcome)
        self.processes.refusal = None
        with self.spawner.wanted():
            self.spawner.failed(FAILED)
        self.assertEqual(len(self.processes.started), 1)


class OptionTests(SynchronousTestCase):
    """What may be said about it."""

    def test_command(self) -> None:
        """How long it stays without work is always said, in either spelling that it may have been given in."""
        idle = "--idleShutdownTimeoutSecs"
        for path, arguments, command in (
            ("mongocryptd", [], ["mongocryptd", f"{idle}=60"]),
            ("", ["--port=1"], ["mongocryptd", "--port=1", f"{idle}=60"]),
            (None, [f"{idle}=5"], ["mongocryptd", f"{idle}=5"]),
            ("/opt/it", [idle, 5], ["/opt/it", idle, "5"]),
            (
                "it",
                ["--logpath=/tmp/idleShutdownTimeoutSecs"],
                ["it", "--logpath=/tmp/idleShutdownTimeoutSecs", f"{idle}=60"],
            ),
        ):
            self.assertEqual(spawn_command(path, arguments), command)

    def test_types(self) -> None:
        """What cannot be a command is refused by name."""
        for path, arguments, name in (
            (7, [], "mongocryptd_spawn_path"),
            ("it", "--port=1", "mongocryptd_spawn_args"),
            ("it", None, "mongocryptd_spawn_args"),
            ("it", [b"--port=1"], "each of mongocryptd_spawn_args"),
            ("it", [True], "each of mongocryptd_spawn_args"),
        ):
            self.assertIn(name, str(self.assertRaises(TypeError, spawn_command, path, arguments)))

    def make(self, uri: Any, spawner: Spawner | None = None) -> Mongocryptd:
        """One that is never connected to."""

        clock = Clock()

        def client(uri: str, **options: Any) -> ConnectionPool[Any]:
            made: ConnectionPool[Any] = ConnectionPool(uri, reactor=clock, **options)
            self.addCleanup(lambda: self.successResultOf(made.disconnect()))
            return made

        return Mongocryptd(uri, clock, client, spawner)

    def test_uri(self) -> None:
        """A connection string that cannot be used is refused, and its option named."""
        self.assertIn("mongocryptd_uri", str(self.assertRaises(TypeError, self.make, 27020)))
        for wrong in ("mongodb://", "mongodb://localhost/?tls=false&tlsCAFile=ca.pem"):
            self.assertIn("mongocryptd_uri: ", str(self.assertRaises(ConfigurationError, self.make, wrong)))

    def test_time(self) -> None:
        """It is looked for for ten seconds, or as long as its connection string says."""
        self.assertEqual(self.make("mongodb://localhost:27020").client.options.server_selection_timeout, 10)
        longer = "mongodb://localhost:27020/?serverSelectionTimeoutMS=20000"
        self.assertEqual(self.make(longer).client.options.server_selection_timeout, 20)

    def test_listener(self) -> None:
        """Who starts it hears when it is not there; nobody does where that was not wanted."""
        spawner = Spawner(Processes(), ["it"])
        self.assertEqual(
            list(self.make("mongodb://localhost:27020", spawner).client.options.event_listeners), [spawner]
        )
        self.assertEqual(list(self.make("mongodb://localhost:27020").client.options.event_listeners), [])

    def automatic(self, **options: Any) -> ConnectionPool[Any]:
        """A client with automatic encryption that is never connected."""
        opts = AutoEncryptionOpts(LOCAL, "a.keys", **options)
        client: ConnectionPool[Any] = ConnectionPool(reactor=Clock(), auto_encryption_opts=opts)
        self.addCleanup(lambda: self.successResultOf(client.disconnect()))
        return client

    def test_bypass(self) -> None:
        """Where nothing is analysed there is no client for it, and where it is not to be started nobody does that."""
        for options, has_client, has_spawner in (
            ({}, True, True),
            ({"mongocryptd_bypass_spawn": True}, True, False),
            ({"bypass_auto_encryption": True}, False, False),
            ({"bypass_query_analysis": True}, False, False),
        ):
            encryption = self.automatic(**options)._encryption
            assert encryption is not None
            mongocryptd = encryption._callbacks.mongocryptd
            self.assertEqual(mongocryptd is not None, has_client, options)
            self.assertEqual(mongocryptd is not None and mongocryptd._spawner is not None, has_spawner, options)

    def test_refused(self) -> None:
        """Options of the wrong type are refused when the client is made."""
        for options in (
            {"mongocryptd_spawn_path": 7},
            {"mongocryptd_spawn_args": ["--idleShutdownTimeoutSecs", 1.5]},
            {"mongocryptd_uri": 27020},
            {"crypt_shared_lib_path": 7},
        ):
            error = self.assertRaises(TypeError, self.automatic, **options)
            self.assertIn(next(iter(options)), str(error))


class AskingTests(ClientCase):
    """How it is asked."""

    def mark(self, spawner: Spawner | None = None) -> Deferred[Any]:
        """Have a command marked."""
        uri = "mongodb://user:hidden@fake.example/?authMechanism=PLAIN"

        def client(uri: str, **options: Any) -> ConnectionPool[Any]:
            return self.client("mongodb://fake.example", **options)

        mongocryptd = Mongocryptd(uri, self.clock, client, spawner)
        return self.started(Deferred.fromCoroutine(mongocryptd.mark("shop", bson.encode({"insert": "cards"}))))

    def test_answer(self) -> None:
        """It is given the command as it is, and its answer is given back as it came."""
        self.server.answer("insert", {"result": {"a": 1}})
        self.assertEqual(bson.decode(self.successResultOf(self.mark())), {"ok": 1.0, "result": {"a": 1}})
        (command,) = self.server.commands("insert")
        self.assertEqual(list(command), ["insert", "$db"])

    def test_error(self) -> None:
        """What it refuses is not asked again."""
        self.server.answer("insert", {"ok": 0, "code": 51, "errmsg": "no"})
        self.failureResultOf(self.mark(), OperationFailure)
        self.assertEqual(len(self.server.commands("insert")), 1)

    def test_lost(self) -> None:
        """Where it is lost it is started if need be, and asked again."""
        for processes in (Processes(), None):
            self.server.answer("insert", Behaviour.HANG_UP, Behaviour.HANG_UP, {})
            marking = self.mark(None if processes is None else Spawner(processes, [sys.executable]))
            self.assertNoResult(marking)
            self.clock.pump([0.1] * 30)
            self.turn()
            self.successResultOf(marking)
            self.assertEqual(len(processes.started) if processes else 1, 1)

    def test_lost_for_long(self) -> None:
        """After ten seconds it is not asked any more; the error says where it was, and no more of it."""
        self.server.answer("insert", Behaviour.HANG_UP)
        marking = self.mark(Spawner(Processes(), [sys.executable]))
        self.clock.pump([0.1] * 95)
        self.assertNoResult(marking)
        self.clock.pump([0.1] * 15)
        text = str(self.failureResultOf(marking, AutoReconnect).value)
        self.assertIn(f"mongocryptd_uri (fake.example:27017); {sys.executable} was started: ", text)
        self.assertNotIn("hidden", text)

    def test_never_there(self) -> None:
        """One that is never reached is started once, and the error says so."""
        self.server.refusing = True
        processes = Processes()
        marking = self.mark(Spawner(processes, [sys.executable]))
        self.clock.pump([0.1] * 105)
        text = str(self.failureResultOf(marking, ServerSelectionTimeoutError).value)
        self.assertIn("was started", text)
        self.assertEqual(len(processes.started), 1)

    def test_there_after_start(self) -> None:
        """Who wanted it has it as soon as it listens."""
        self.server.refusing = True
        self.server.answer("insert", {})
        processes = Processes()
        marking = self.mark(Spawner(processes, [sys.executable]))
        self.assertEqual(len(processes.started), 1)
        self.server.refusing = False
        self.clock.pump([0.1] * 12)
        self.turn()
        self.successResultOf(marking)

    def test_cancel(self) -> None:
        """Asking can be cancelled, between two questions as well."""
        self.server.answer("insert", Behaviour.HANG_UP)
        marking = self.mark()
        marking.cancel()
        self.failureResultOf(marking, CancelledError)
