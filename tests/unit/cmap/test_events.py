"""Tests of what a pool tells its listeners and the log."""

from __future__ import annotations

from typing import Any

from bson.objectid import ObjectId
from pymongo import monitoring
from pymongo.monitoring import ConnectionClosedReason

from tests.unit.logged import LoggedTestCase
from txmongo._cmap.errors import CheckOutTimeoutError, PoolClosedError
from txmongo._cmap.events import PoolPublisher, publisher_for
from txmongo.errors import AutoReconnect

ADDRESS = ("h", 27017)


class Listener(monitoring.CommandListener):
    """Is not for pools."""


class LogTests(LoggedTestCase):
    """Messages of the component "connection"."""

    def tell(self, method: str, *arguments: Any) -> dict[str, Any]:
        """The fields of the message of one event, but for the server's."""
        publisher = PoolPublisher([], ADDRESS, self.log("connection"))
        getattr(publisher, method)(*arguments)
        (fields,) = self.taken()
        self.assertEqual((fields.pop("serverHost"), fields.pop("serverPort")), ADDRESS)
        return fields

    def test_nobody(self) -> None:
        """Without listeners and log there is no publisher."""
        self.assertIsNone(publisher_for([Listener()], ADDRESS))
        self.assertIsNotNone(publisher_for(None, ADDRESS, self.log("connection")))

    def test_pool(self) -> None:
        """What becomes of the pool is told."""
        options = {"minPoolSize": 1, "waitQueueTimeoutMS": None}
        self.assertEqual(
            self.tell("pool_created", options), {"mongodb_message": "Connection pool created", "minPoolSize": 1}
        )
        self.assertEqual(self.tell("pool_ready"), {"mongodb_message": "Connection pool ready"})
        self.assertEqual(self.tell("pool_cleared", None, False), {"mongodb_message": "Connection pool cleared"})
        service = ObjectId()
        self.assertEqual(self.tell("pool_cleared", service, False)["serviceId"], str(service))
        self.assertEqual(self.tell("pool_closed"), {"mongodb_message": "Connection pool closed"})

    def test_connection(self) -> None:
        """What becomes of a connection is told under its number."""
        for method, arguments, message, more in (
            ("connection_created", (), "Connection created", {}),
            ("connection_ready", (0.25,), "Connection ready", {"durationMS": 250.0}),
            ("checked_out", (0.001,), "Connection checked out", {"durationMS": 1.0}),
            ("checked_in", (), "Connection checked in", {}),
        ):
            expected = {"mongodb_message": message, "driverConnectionId": 3, **more}
            self.assertEqual(self.tell(method, 3, *arguments), expected)

    def test_closed(self) -> None:
        """A connection is closed for one of four reasons; an error is shown."""
        closed = self.tell("connection_closed", 3, ConnectionClosedReason.ERROR, AutoReconnect("gone"))
        self.assertEqual(closed["reason"], "An error occurred while using the connection")
        self.assertEqual(closed["error"], "AutoReconnect: gone")
        unknown = self.tell("connection_closed", 3, ConnectionClosedReason.ERROR)
        self.assertEqual(unknown["error"], "the connection was lost")
        reasons = (ConnectionClosedReason.STALE, ConnectionClosedReason.IDLE, ConnectionClosedReason.POOL_CLOSED)
        told = [self.tell("connection_closed", 3, reason) for reason in reasons]
        self.assertEqual(
            [each["reason"] for each in told],
            [
                "Connection became stale because the pool was cleared",
                "Connection has been available but unused for longer than the configured max idle time",
                "Connection pool was closed",
            ],
        )
        self.assertFalse(any("error" in each for each in told))

    def test_check_out(self) -> None:
        """A check-out begins, and fails for one of three reasons."""
        self.assertEqual(self.tell("check_out_started"), {"mongodb_message": "Connection checkout started"})
        error = AutoReconnect("gone")
        failed = self.tell("check_out_failed", error, 0.5)
        self.assertEqual(
            failed,
            {
                "mongodb_message": "Connection checkout failed",
                "reason": "An error occurred while trying to establish a new connection",
                "error": "AutoReconnect: gone",
                "durationMS": 500.0,
            },
        )
        late = CheckOutTimeoutError(ADDRESS, max_pool_size=1, in_use=1, opening=0, waiting=0)
        for refusal, text in (
            (late, "Wait queue timeout elapsed without a connection becoming available"),
            (PoolClosedError(ADDRESS), "Connection pool was closed"),
        ):
            failed = self.tell("check_out_failed", refusal, 0.5)
            self.assertEqual((failed["reason"], "error" in failed), (text, False))

    def test_sentence(self) -> None:
        """A message reads as a sentence."""
        publisher = PoolPublisher([], ADDRESS, self.log("connection"))
        publisher.pool_created({"minPoolSize": 1, "maxConnecting": 5})
        publisher.connection_closed(3, ConnectionClosedReason.ERROR, AutoReconnect("gone"))
        self.assertEqual(
            self.sentences(),
            [
                "Connection pool created for h:27017 using options minPoolSize=1 maxConnecting=5",
                "Connection closed: h:27017, driver-generated ID=3. Reason: An error occurred while using the "
                "connection. Error: AutoReconnect: gone",
            ],
        )
