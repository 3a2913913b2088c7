"""The CMAP specification's own test format, run through our Pool and Connector against a real server.

With ``pipelining=False``: the format is about one operation per connection. The pool stands alone, without a topology;
where a case expects an error of the background to clear the pool, as the topology would, the runner does that.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pymongo import monitoring
from twisted.internet import defer, reactor, task
from twisted.trial.unittest import TestCase

from tests.conformance.cases import add_cases
from tests.conformance.deployment import Deployment, Deployments
from tests.conformance.loader import Case
from txmongo._cmap.connector import Connector
from txmongo._cmap.endpoints import Endpoints
from txmongo._cmap.errors import PoolClosedError
from txmongo._cmap.pool import CheckOut, Pool
from txmongo._deferreds import Broadcast, Deadline
from txmongo._settings import parse_settings
from txmongo.errors import WaitQueueTimeoutError
from txmongo.types import Address

DEPLOYMENTS = Deployments(reactor)

#: Seconds after which a case is taken to wait for an event in vain.
PATIENCE = 10.0

#: What the pool options of the format are to a driver without a thread in the background: nothing.
NOT_OURS = {"backgroundThreadIntervalMS"}

ERRORS = {"PoolClosedError": PoolClosedError, "WaitQueueTimeoutError": WaitQueueTimeoutError}

_HOOKS = (
    *("pool_created", "pool_ready", "pool_cleared", "pool_closed"),
    *("connection_created", "connection_ready", "connection_closed"),
    *("connection_check_out_started", "connection_check_out_failed"),
    *("connection_checked_out", "connection_checked_in"),
)


class Listener(monitoring.ConnectionPoolListener):
    """Keeps events as the format names and shapes them."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.news = Broadcast()

    def count(self, name: str) -> int:
        """How often an event came."""
        return sum(1 for event in self.events if event["type"] == name)

    def keep(self, event: Any) -> None:
        """Note an event."""
        self.events.append(_described(event))
        self.news.fire()


for _hook in _HOOKS:
    setattr(Listener, _hook, Listener.keep)

_FIELDS = {
    "connection_id": "connectionId",
    "duration": "duration",
    "reason": "reason",
    "options": "options",
    "interrupt_connections": "interruptInUseConnections",
}


def _described(event: Any) -> dict[str, Any]:
    name = type(event).__name__.removesuffix("Event")
    described = {"type": f"Connection{name}" if name.startswith("Pool") else name, "address": event.address}
    for attribute, field in _FIELDS.items():
        if hasattr(event, attribute):
            described[field] = getattr(event, attribute)
    return described


def matches(expected: Any, actual: Any) -> bool:
    """The format's MATCHES: 42 is anything that exists, a document a part of one."""
    if expected in (42, "42") and not isinstance(expected, bool):
        return actual is not None
    if isinstance(expected, Mapping):
        return isinstance(actual, Mapping) and all(
            name in actual and matches(value, actual[name]) for name, value in expected.items()
        )
    if isinstance(expected, list):
        return (
            isinstance(actual, list)
            and len(actual) >= len(expected)
            and all(matches(value, actual[place]) for place, value in enumerate(expected))
        )
    return type(expected) is type(actual) and bool(expected == actual)


class CaseRun:
    """One case under way."""

    def __init__(self, case: Case, address: Address) -> None:
        self.test = case.test
        self.listener = Listener()
        self.labels: dict[str, CheckOut] = {}
        self.threads: dict[str, defer.Deferred[Any]] = {}
        self.waiting: list[defer.Deferred[Any]] = []
        options = {name: value for name, value in self.test.get("poolOptions", {}).items() if name not in NOT_OURS}
        host, port = address
        settings = parse_settings(f"mongodb://{host}:{port}", pipelining=False, **options)
        connector = Connector(settings, Endpoints(reactor, settings), reactor)  # type: ignore[arg-type]
        self.pool = Pool(
            address,
            settings,
            clock=reactor,  # type: ignore[arg-type]
            connect=lambda: connector.connect(address),
            listeners=[self.listener],
            on_connect_error=self.connect_failed,
        )

    def connect_failed(self, error: Exception, generation: int) -> None:
        """What the topology does about it."""
        if generation == self.pool.generation:
            self.pool.clear(error)

    async def run(self) -> BaseException | None:
        """Perform the operations; returns the error of the main thread."""
        try:
            for operation in self.test["operations"]:
                if "thread" in operation:
                    self.schedule(operation)
                else:
                    await self.perform(operation)
        except Exception as error:
            return error
        return None

    def schedule(self, operation: dict[str, Any]) -> None:
        """Perform an operation in a thread, after what it has to do already."""
        done = self.threads[operation["thread"]]
        done.addCallback(lambda _: defer.Deferred.fromCoroutine(self.perform(operation)))

    async def perform(self, operation: dict[str, Any]) -> None:
        """Perform an operation here."""
        arguments = {name: value for name, value in operation.items() if name not in ("name", "thread")}
        await getattr(self, "do_" + operation["name"])(**arguments)

    async def do_start(self, target: str) -> None:
        """Start a thread."""
        self.threads[target] = defer.succeed(None)

    async def do_wait(self, ms: int) -> None:
        """Let time pass."""
        await task.deferLater(reactor, ms / 1000)  # type: ignore[arg-type]

    async def do_waitForThread(self, target: str) -> None:
        """Wait until a thread has done all it has to; its error becomes the main thread's."""
        done: defer.Deferred[None] = defer.Deferred()
        self.threads.pop(target).addCallbacks(done.callback, done.errback)
        done.addTimeout(PATIENCE, reactor)  # type: ignore[arg-type]
        await done

    async def do_waitForEvent(self, event: str, count: int, timeout: int | None = None) -> None:
        """Wait until an event has come so many times."""
        patience = PATIENCE if timeout is None else timeout / 1000
        until = reactor.seconds() + patience  # type: ignore[attr-defined]
        while self.listener.count(event) < count:
            news = self.listener.news.wait()
            news.addTimeout(max(0.0, until - reactor.seconds()), reactor)  # type: ignore[attr-defined, arg-type]
            await news

    async def do_checkOut(self, label: str | None = None) -> None:
        """Check a connection out."""
        request = CheckOut("test")
        await self.pool.check_out(request, Deadline.never)
        if label is not None:
            self.labels[label] = request

    async def do_checkIn(self, connection: str) -> None:
        """Check one in."""
        self.pool.check_in(self.labels.pop(connection))

    async def do_ready(self) -> None:
        """Make the pool ready."""
        self.pool.ready()

    async def do_clear(self, interruptInUseConnections: bool = False) -> None:
        """Clear the pool."""
        self.pool.clear(interrupt_in_use=interruptInUseConnections)

    async def do_close(self) -> None:
        """Close the pool; the format does not wait for its sockets."""
        self.waiting.append(self.pool.close())

    async def end(self) -> None:
        """Close what is open; what threads still wait for fails, and nobody minds."""
        for thread in self.threads.values():
            thread.addErrback(lambda _: None)
        await self.pool.close()
        await defer.gatherResults([*self.waiting, *self.threads.values()])


class PoolFormatTests(TestCase):
    """The cases."""

    timeout = 60

    async def run_case(self, case: Case) -> None:
        """Perform a case's operations and compare its error and its events."""
        deployment = await DEPLOYMENTS.get("single")
        for requirement in case.test.get("runOn", []):
            version = tuple(int(part) for part in requirement["minServerVersion"].split("."))
            self.assertGreaterEqual(deployment.facts.version, version)
        await self.fail_point(deployment, case.test.get("failPoint"))
        run = CaseRun(case, _address(deployment))
        try:
            error = await run.run()
            events = list(run.listener.events)
        finally:
            await run.end()
            await self.fail_point(deployment, {**case.test.get("failPoint", {}), "mode": "off", "data": {}})
        self.check_error(error, case.test.get("error"))
        self.check_events(events, case.test)
        self.assertEqual(run.pool.total_count, len(run.pool._roster.draining))

    async def fail_point(self, deployment: Deployment, command: dict[str, Any] | None) -> None:
        """Set a fail point, or turn it off."""
        if command and "configureFailPoint" in command:
            control = await deployment.control()
            try:
                await control.run("admin", command)
            finally:
                await control.close()

    def check_error(self, error: BaseException | None, expected: dict[str, Any] | None) -> None:
        """The error of the main thread is the expected one, if one is."""
        if expected is None:
            if error is not None:
                raise error
            return
        self.assertIsInstance(error, ERRORS[expected["type"]])
        described = {name: getattr(error, name) for name in ("message", "address")}
        self.assertTrue(matches({name: expected[name] for name in expected if name != "type"}, described), str(error))

    def check_events(self, events: list[dict[str, Any]], test: dict[str, Any]) -> None:
        """The events that are not ignored begin as expected."""
        actual = [event for event in events if event["type"] not in test["ignore"]] if "ignore" in test else events
        expected = test.get("events", [])
        self.assertGreaterEqual(len(actual), len(expected), actual)
        for place, event in enumerate(expected):
            self.assertTrue(matches(event, actual[place]), f"event {place}: expected {event}, got {actual[place]}")


def _address(deployment: Deployment) -> Address:
    match = re.search(r"//([^/:]+):(\d+)", deployment.direct_uri)
    assert match is not None
    return match[1], int(match[2])


def _run(self: PoolFormatTests, case: Case) -> defer.Deferred[None]:
    return defer.Deferred.fromCoroutine(self.run_case(case))


COUNT = add_cases(PoolFormatTests, "connection_monitoring", _run)


class CountTests(TestCase):
    """None is missing."""

    def test_count(self) -> None:
        """The suite has at least the 32 cases of the pinned specifications."""
        self.assertGreaterEqual(COUNT, 32)
