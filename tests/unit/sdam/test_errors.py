"""What an error says about its server."""

from __future__ import annotations

from typing import Any

from pymongo.server_description import ServerDescription
from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.sdam.fakes import A, standalone, topology_version
from txmongo._cmap.errors import PoolClearedError
from txmongo._pymongo import add_error_label
from txmongo._sdam.description import parse_hello
from txmongo._sdam.errors import IGNORE, ErrorContext, Verdict, decide, is_network_error
from txmongo.errors import (
    AutoReconnect,
    BulkWriteError,
    ConfigurationError,
    DuplicateKeyError,
    NetworkTimeout,
    NotPrimaryError,
    OperationFailure,
    ProtocolError,
    ServerSelectionTimeoutError,
    WaitQueueTimeoutError,
    WriteError,
    error_from_reply,
    write_concern_error_from_reply,
)

LOST = Verdict(mark_unknown=True, clear_pool=True, cancel_check=True)
CHANGED = Verdict(mark_unknown=True, request_check=True)
SHUT_DOWN = Verdict(mark_unknown=True, clear_pool=True, request_check=True)


def reply_error(**fields: Any) -> BaseException:
    """The error of a reply."""
    error = error_from_reply({"ok": 0, "errmsg": "", **fields})
    assert error is not None
    return error


class DecideTests(SynchronousTestCase):
    """The table of verdicts."""

    def decide(self, error: BaseException, server: ServerDescription | None = None, **context: Any) -> Verdict:
        values = {"generation": 0, "pool_generation": 0, "completed_handshake": True, "max_wire_version": 17, **context}
        return decide(error, server or ServerDescription(A), ErrorContext(**values))

    def test_network(self) -> None:
        """A connection that broke: the server is lost."""
        self.assertEqual(self.decide(AutoReconnect("broken")), LOST)

    def test_timeout(self) -> None:
        """A timeout on an established connection may only be a slow operation."""
        self.assertEqual(self.decide(NetworkTimeout("slow")), IGNORE)

    def test_stale_generation(self) -> None:
        """What happened on a connection from before the pool was cleared is old news."""
        self.assertEqual(self.decide(AutoReconnect(""), generation=1, pool_generation=2), IGNORE)
        self.assertEqual(self.decide(reply_error(code=91), generation=1, pool_generation=2), IGNORE)

    def test_not_primary(self) -> None:
        """A server that is no longer primary keeps its connections and is looked at soon."""
        for code in (10107, 13435, 10058, 11602, 13436, 189):
            self.assertEqual(self.decide(reply_error(code=code)), CHANGED)

    def test_shutting_down(self) -> None:
        """A server that shuts down loses them."""
        for code in (91, 11600):
            self.assertEqual(self.decide(reply_error(code=code)), SHUT_DOWN)

    def test_old_server(self) -> None:
        """Before MongoDB 4.2 a server that steps down closes its connections."""
        self.assertEqual(self.decide(reply_error(code=10107), max_wire_version=7), SHUT_DOWN)
        self.assertEqual(self.decide(reply_error(code=10107), max_wire_version=8), CHANGED)

    def test_message_without_code(self) -> None:
        """The message counts only where there is no code."""
        self.assertEqual(self.decide(reply_error(errmsg="not master")), CHANGED)
        self.assertEqual(self.decide(reply_error(errmsg="node is recovering")), CHANGED)
        self.assertEqual(self.decide(reply_error(errmsg="not master", code=1)), IGNORE)

    def test_write_concern_error(self) -> None:
        """A write concern error is judged like a reply's own."""
        error = write_concern_error_from_reply({"ok": 1, "writeConcernError": {"code": 91, "errmsg": "shutting down"}})
        assert error is not None
        self.assertEqual(self.decide(error), SHUT_DOWN)
        harmless = OperationFailure("", 1, {"code": 1, "writeConcernError": {"code": 64, "errmsg": "not master"}})
        self.assertEqual(self.decide(harmless), IGNORE)

    def test_bare_not_primary(self) -> None:
        """A reply without a code is judged by its message, whatever the exception's class."""
        self.assertEqual(self.decide(NotPrimaryError("", {"errmsg": "not master"})), CHANGED)

    def test_errors_of_writes(self) -> None:
        """What went wrong with one document says nothing about the server."""
        for error in (WriteError("", 13435), DuplicateKeyError("", 11000), BulkWriteError({"writeErrors": []})):
            self.assertEqual(self.decide(error), IGNORE)

    def test_command_errors(self) -> None:
        """Other answers of the server show that it works."""
        self.assertEqual(self.decide(reply_error(code=26, errmsg="no such database")), IGNORE)

    def test_stale_topology_version(self) -> None:
        """A state that is known already, or older, changes nothing."""
        server = parse_hello(
            A, standalone(topologyVersion=topology_version(2)), awaited=False, rtt=None, minimum_rtt=0.0
        )[1]
        for counter, verdict in ((1, IGNORE), (2, IGNORE), (3, CHANGED)):
            error = reply_error(code=10107, topologyVersion=topology_version(counter))
            self.assertEqual(self.decide(error, server), verdict)
        self.assertEqual(self.decide(reply_error(code=10107), server), CHANGED)

    def test_own_errors(self) -> None:
        """Errors that the client made itself say nothing about the server."""
        for error in (
            PoolClearedError("cleared"),
            WaitQueueTimeoutError(),
            ServerSelectionTimeoutError(),
            CancelledError(),
            ConfigurationError(),
        ):
            self.assertEqual(self.decide(error), IGNORE)
            self.assertEqual(self.decide(error, completed_handshake=False), IGNORE)

    def test_authentication(self) -> None:
        """Whatever goes wrong while authenticating: the server is lost for us."""
        for error in (OperationFailure("", 18), AutoReconnect(""), NetworkTimeout(""), ProtocolError("")):
            self.assertEqual(self.decide(error, completed_handshake=False), LOST)

    def test_before_hello(self) -> None:
        """A server that takes no new connections may be overloaded; the old ones may go on."""
        for error in (AutoReconnect(""), NetworkTimeout("")):
            add_error_label(error, "SystemOverloadedError")
            self.assertEqual(self.decide(error, completed_handshake=False), IGNORE)
        self.assertEqual(self.decide(AutoReconnect("no such name"), completed_handshake=False), LOST)
        shutting_down = reply_error(code=91)
        self.assertEqual(self.decide(shutting_down, completed_handshake=False), SHUT_DOWN)

    def test_load_balancer(self) -> None:
        """A load balancer never becomes Unknown; only connections to the service in question are cleared."""
        service = {"load_balanced": True, "has_service": True}
        self.assertEqual(self.decide(AutoReconnect(""), **service), Verdict(clear_pool=True))
        self.assertEqual(self.decide(reply_error(code=91), **service), Verdict(clear_pool=True))
        self.assertEqual(self.decide(reply_error(code=10107), **service), IGNORE)
        self.assertEqual(self.decide(AutoReconnect(""), load_balanced=True), IGNORE)


class NetworkErrorTests(SynchronousTestCase):
    """Whom to blame."""

    def test_blame(self) -> None:
        """Connection errors and timeouts are the network's; what the server or the client says is not."""
        network = [AutoReconnect(""), NetworkTimeout("")]
        others = [reply_error(code=91), reply_error(code=1), PoolClearedError(""), ServerSelectionTimeoutError("")]
        self.assertEqual([is_network_error(error) for error in network + others], [True] * 2 + [False] * 4)
