"""Tests of the servers that :mod:`txmongo.testing` starts."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from twisted.internet import reactor, task
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.integration.servers import until_frozen
from txmongo._testing import mongod as testing_mongod
from txmongo.testing import (
    CertificateAuthority,
    FakeServer,
    Mongod,
    MongodFailed,
    MongodNotFound,
    NotInTime,
    ReplicaSet,
)


def ask(uri: str, command: str, **options: Any) -> Deferred[dict[str, Any]]:
    """Run a command on ``admin`` through PyMongo: another client's view of the server."""

    def run() -> dict[str, Any]:
        with MongoClient[dict[str, Any]](uri, **options) as client:
            return client.admin.command(command)

    return deferToThread(run)


def listening(port: int) -> bool:
    """Whether somebody listens on a port."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def alive(pid: int) -> bool:
    """Whether a process is there."""
    return Path(f"/proc/{pid}").exists()


class MongodTests(TestCase):
    """A standalone server."""

    timeout = 120

    async def test_starts_and_stops(self) -> None:
        """It takes commands after start(), and server and folder are gone after stop()."""
        mongod = await Mongod(reactor).start()
        folder, port = mongod.folder, mongod.port
        assert folder is not None and port is not None
        self.assertTrue(folder.is_dir())
        self.assertEqual((await ask(mongod.uri, "ping"))["ok"], 1)
        self.assertIn("running", repr(mongod))
        await mongod.stop()
        self.assertFalse(folder.exists())
        self.assertFalse(listening(port))
        self.assertFalse(mongod.running)

    async def test_stop_before_start(self) -> None:
        """stop() of a server that never ran does nothing."""
        await Mongod(reactor).stop()

    async def test_restart_keeps_port_and_data(self) -> None:
        """After kill(), start() brings it back on the same port with what was written durably."""
        mongod = await Mongod(reactor).start()
        self.addCleanup(mongod.stop)
        address = mongod.address
        insert = {"insert": "c", "documents": [{"_id": 1}], "writeConcern": {"j": True}}
        await mongod.command("test", insert)
        await mongod.kill()
        self.assertFalse(mongod.running)
        await mongod.start()
        self.assertEqual(mongod.address, address)
        found = await mongod.command("test", {"find": "c"})
        self.assertEqual(found["cursor"]["firstBatch"], [{"_id": 1}])

    async def test_port_taken(self) -> None:
        """If somebody takes its port first it starts on another one; for its old one it waits until that is free."""
        taken = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(taken.close)
        number = taken.getsockname()[1]
        found = [number, number]
        free_port = testing_mongod.free_port
        self.patch(testing_mongod, "free_port", lambda host: found.pop() if found else free_port(host))
        mongod = await Mongod(reactor).start()
        self.addCleanup(mongod.stop)
        self.assertEqual(found, [])
        self.assertNotEqual(mongod.port, number)
        self.assertEqual((await ask(mongod.uri, "ping"))["ok"], 1)
        await mongod.kill()
        taken = socket.create_server(mongod.address)
        self.addCleanup(taken.close)
        starting = mongod.start()
        while mongod.log().count("Address already in use") < 4:
            await task.deferLater(reactor, 0.01)
        self.assertNoResult(starting)
        taken.close()
        await starting
        self.assertEqual((await ask(mongod.uri, "ping"))["ok"], 1)

    async def test_auth(self) -> None:
        """With auth the URI carries a root user, and without credentials nothing is allowed."""
        mongod = await Mongod(reactor, auth=True).start()
        self.addCleanup(mongod.stop)
        status = await ask(mongod.uri, "connectionStatus")
        self.assertEqual(status["authInfo"]["authenticatedUserRoles"], [{"role": "root", "db": "admin"}])
        failure = await self.assertFailure(ask(f"mongodb://127.0.0.1:{mongod.port}/", "listDatabases"), Exception)
        self.assertEqual(failure.code, 13)

    async def test_tls(self) -> None:
        """With TLS the URI names the files to connect with, and plain connections are refused."""
        authority = CertificateAuthority(self.mktemp())
        files = authority.tls_files(require_client_certificate=True)
        mongod = await Mongod(reactor, tls=files).start()
        self.addCleanup(mongod.stop)
        self.assertEqual((await ask(mongod.uri, "ping"))["ok"], 1)
        self.assertEqual((await mongod.command("admin", {"ping": 1}))["ok"], 1)
        plain = ask(f"mongodb://127.0.0.1:{mongod.port}/", "ping", serverSelectionTimeoutMS=300)
        await self.assertFailure(plain, Exception)

    async def test_unix_socket(self) -> None:
        """It listens on a UNIX socket in its folder if asked to."""
        mongod = await Mongod(reactor, unix_socket=True).start()
        self.addCleanup(mongod.stop)
        assert mongod.socket_path is not None
        self.assertTrue(mongod.socket_path.is_socket())

    async def test_ipv6(self) -> None:
        """It listens on the IPv6 loopback address if asked to."""
        mongod = await Mongod(reactor, host="::1").start()
        self.addCleanup(mongod.stop)
        self.assertEqual((await ask(mongod.uri, "ping"))["ok"], 1)

    async def test_parameters(self) -> None:
        """Server parameters are set, booleans in the server's spelling."""
        mongod = await Mongod(reactor, parameters={"enableTestCommands": 1, "quiet": True}).start()
        self.addCleanup(mongod.stop)
        reply = await mongod.command("admin", {"getParameter": 1, "enableTestCommands": 1, "quiet": 1})
        self.assertEqual((reply["enableTestCommands"], reply["quiet"]), (True, True))

    async def test_mongod_fails(self) -> None:
        """When mongod exits at once, the error shows the end of its log, and nothing is left behind."""
        mongod = Mongod(reactor, parameters={"noSuchParameter": 1})
        error = await self.assertFailure(mongod.start(), MongodFailed)
        self.assertIn("Unknown --setParameter 'noSuchParameter'", str(error))
        self.assertIsNone(mongod.folder)

    async def test_not_a_program(self) -> None:
        """A binary that cannot be run is an error that names it."""
        error = await self.assertFailure(Mongod(reactor, binary="/no/such/mongod").start(), MongodFailed)
        self.assertIn("/no/such/mongod", str(error))

    async def test_too_slow(self) -> None:
        """A server that does not listen in time is an error, and is killed."""
        mongod = Mongod(reactor, start_timeout=0.0)
        error = await self.assertFailure(mongod.start(), MongodFailed)
        self.assertIn("not in time", str(error))
        self.assertFalse(mongod.running)

    async def test_not_found(self) -> None:
        """Where $TXMONGO_MONGOD names no program, start() fails and says so."""
        self.patch(os, "environ", {**os.environ, "TXMONGO_MONGOD": "/no/such/mongod"})
        error = await self.assertFailure(Mongod(reactor).start(), MongodNotFound)
        self.assertIn("TXMONGO_MONGOD", str(error))

    async def test_freeze(self) -> None:
        """A frozen server keeps its sockets and answers only after thaw()."""
        mongod = await Mongod(reactor).start()
        self.addCleanup(mongod.stop)
        mongod.freeze()
        await until_frozen(mongod)
        waiting = mongod.command("admin", {"ping": 1})
        await task.deferLater(reactor, 0.2)
        self.assertFalse(waiting.called)
        mongod.thaw()
        self.assertEqual((await waiting)["ok"], 1)

    async def test_guard_dies(self) -> None:
        """When the process that guards it is killed, the server goes too; start() fails and removes what is left."""
        mongod = await Mongod(reactor).start()
        pid, folder = mongod.pid, mongod.folder
        assert pid is not None and folder is not None
        status = Path(f"/proc/{pid}/status").read_text()
        os.kill(int(status.split("PPid:")[1].split()[0]), signal.SIGKILL)
        while alive(pid) or mongod.running:
            await task.deferLater(reactor, 0.01)
        error = await self.assertFailure(mongod.start(), MongodFailed)
        self.assertIn("guards", str(error))
        self.assertFalse(folder.exists())

    async def test_run_dies(self) -> None:
        """When the process that started it is killed by SIGKILL, server and folder go too."""
        program = (
            f"import sys; sys.path[:0] = {sys.path!r}\n"
            "from twisted.internet import reactor\n"
            "from txmongo.testing import Mongod\n"
            "Mongod(reactor).start().addCallback(lambda m: print(m.pid, m.folder, flush=True))\n"
            "reactor.run()\n"
        )
        run = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        assert run.stdout is not None
        with run.stdout as output:
            pid, folder = (await deferToThread(output.readline)).split()
        self.assertTrue(alive(int(pid)) and Path(folder).is_dir())
        run.send_signal(signal.SIGKILL)
        run.wait()
        give_up_at = time.monotonic() + 60
        while (alive(int(pid)) or Path(folder).exists()) and time.monotonic() < give_up_at:
            await task.deferLater(reactor, 0.02)
        self.assertFalse(alive(int(pid)))
        self.assertFalse(Path(folder).exists())


class FakeServerTests(TestCase):
    """The scripted server on a real socket."""

    timeout = 30

    async def test_listen(self) -> None:
        """Over the loopback interface another driver takes it for a server, and stop() closes its connections."""
        server = await FakeServer({"ping": {"number": 7}}).listen(reactor)
        self.addCleanup(server.stop)
        self.assertEqual(await ask(server.uri, "ping"), {"ok": 1.0, "number": 7})
        host, port = server.address
        client = socket.create_connection((host, port))
        self.addCleanup(client.close)
        while server.connections == 0:
            await task.deferLater(reactor, 0.01)
        await server.stop()
        self.assertEqual((server.connections, listening(port)), (0, False))


class ReplicaSetTests(TestCase):
    """A replica set, its members killed, frozen and asked to step down."""

    timeout = 240

    async def test_failover(self) -> None:
        """Another member becomes primary when the primary steps down, is frozen or is killed, and members come back."""
        replica_set = await ReplicaSet(reactor, 3, election_timeout=1.0).start()
        self.addCleanup(replica_set.stop)
        hello = await ask(replica_set.uri, "hello")
        self.assertEqual((hello["setName"], len(hello["hosts"])), ("rs0", 3))

        first = await replica_set.primary()
        second = await replica_set.step_down(5)
        self.assertIsNot(first, second)

        replica_set.freeze(second)
        self.assertIn("frozen", repr(replica_set))
        third = await replica_set.primary()
        self.assertIsNot(second, third)
        replica_set.thaw(second)

        await replica_set.kill(third)
        self.assertFalse(third.running)
        fourth = await replica_set.primary()
        self.assertIsNot(third, fourth)
        await replica_set.restart(third)
        last = await replica_set.settled()
        for member in replica_set.members:
            hello = await member.command("admin", {"hello": 1})
            self.assertEqual((hello["secondary"], hello["primary"]), (member is not last, f"127.0.0.1:{last.port}"))

        folders = [member.folder for member in replica_set.members]
        await replica_set.stop()
        self.assertFalse(any(folder is not None and folder.exists() for folder in folders))

    async def test_auth(self) -> None:
        """With auth the URI carries a root user and the set's own commands still work."""
        replica_set = await ReplicaSet(reactor, 2, auth=True, name="other").start()
        self.addCleanup(replica_set.stop)
        status = await ask(replica_set.uri, "replSetGetStatus")
        self.assertEqual((status["set"], len(status["members"])), ("other", 2))
        await replica_set.step_down(10)

    async def test_primary_lost_at_the_start(self) -> None:
        """A primary that is too slow for the first election's short timeouts, and so loses its place, does no harm."""
        command, slowed = Mongod.command, list[Mongod]()

        async def slow(mongod: Mongod, database: str, document: Mapping[str, Any]) -> dict[str, Any]:
            if "replSetReconfig" in document and not slowed:
                slowed.append(mongod)
                mongod.freeze()
                await task.deferLater(reactor, 1)  # five times as long as they are
                mongod.thaw()
            return await command(mongod, database, document)

        self.patch(Mongod, "command", lambda *args: Deferred.fromCoroutine(slow(*args)))
        replica_set = await ReplicaSet(reactor, 3, auth=True).start()
        self.addCleanup(replica_set.stop)
        self.assertEqual(len(slowed), 1)
        primary = await replica_set.primary()
        config = (await primary.command("admin", {"replSetGetConfig": 1}))["config"]
        self.assertEqual(config["settings"]["electionTimeoutMillis"], 2000)
        for member in replica_set.members:
            hello = await member.command("admin", {"hello": 1})
            self.assertEqual((hello["primary"], hello["setVersion"]), (f"127.0.0.1:{primary.port}", config["version"]))

    async def test_one_member(self) -> None:
        """A set of one member is a set."""
        replica_set = await ReplicaSet(reactor, 1).start()
        self.addCleanup(replica_set.stop)
        self.assertEqual((await ask(replica_set.uri, "hello"))["setName"], "rs0")

    async def test_no_primary(self) -> None:
        """Where no primary can be elected, waiting for one fails in time and says what there is."""
        replica_set = await ReplicaSet(reactor, 2).start()
        self.addCleanup(replica_set.stop)
        primary = await replica_set.primary()
        await replica_set.kill(primary)
        error = await self.assertFailure(replica_set.primary(timeout=0.5, other_than=primary), NotInTime)
        self.assertIn("stopped", str(error))

    async def test_member_fails(self) -> None:
        """When a member does not start, start() fails as it did and stops the others."""
        replica_set = ReplicaSet(reactor, 2, parameters={"noSuchParameter": 1})
        await self.assertFailure(replica_set.start(), MongodFailed)
        self.assertFalse(any(member.running for member in replica_set.members))

    def test_no_member(self) -> None:
        """A set without members is refused at once."""
        self.assertRaises(ValueError, ReplicaSet, reactor, 0)
