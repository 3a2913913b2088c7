"""Runs one case of the unified test format from its preparation to its outcome ("Executing a Test")."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import attrs

from tests.conformance.bookkeeping import features
from tests.conformance.control import ControlLink
from tests.conformance.loader import Case
from tests.conformance.unified import data, entities, operations, special
from tests.conformance.unified.events import match_events
from tests.conformance.unified.expected_errors import is_driver_error, match_error
from tests.conformance.unified.failures import FormatError, Mismatch
from tests.conformance.unified.logs import match_messages
from tests.conformance.unified.matcher import UNSET, Matcher
from tests.conformance.unified.requirements import check_schema_version
from tests.conformance.unified.waiting import sleep

__all__ = ["CaseRun", "Servers"]

#: The least that drivers allow. After many a fail point the next heartbeat finds the server again, whenever that is.
QUICK_HEARTBEAT_MS = 500
#: Seconds: how long commands may take that nobody waits for, and how often to look.
SETTLING_TIME = 10.0
PAUSE = 0.01
#: The suite whose cases leave operations few milliseconds.
TIME_LIMITS = "csot"
#: Failures of killAllSessions that do not matter: Interrupted, Unauthorized.
IGNORED_KILL_FAILURES = (11601, 13)


class Servers(Protocol):
    """What a run asks of the servers beside the clients under test."""

    async def control(self) -> ControlLink:
        """A new connection to the one that is written to."""
        ...

    async def on_every_member(self, work: Callable[[ControlLink], Awaitable[Any]]) -> None:
        """Do something over a new connection to each."""
        ...


class CaseRun:
    """One run of one case.

    :param makings: what entities are made of.
    :param keep_looping: asked before each round of a ``loop`` operation.
    """

    def __init__(
        self,
        case: Case,
        deployment: Servers,
        makings: entities.Makings,
        *,
        keep_looping: Callable[[], bool] = lambda: False,
    ) -> None:
        self.case = case
        self.clock = makings.clock
        self.entities = entities.EntityMap()
        self.matcher = Matcher(self.entities)
        self.fail_points: list[str] = []
        self.keep_looping = keep_looping
        self._deployment = deployment
        self._control: ControlLink | None = None
        self._makings = makings
        if "operation:failPoint" in features(case):
            self._makings = attrs.evolve(self._makings, heartbeat_frequency_ms=QUICK_HEARTBEAT_MS)
        if case.folder == TIME_LIMITS:
            self._makings = attrs.evolve(self._makings, connects_first=True)

    @property
    def control(self) -> ControlLink:
        """The runner's own connection."""
        assert self._control is not None
        return self._control

    async def run(self) -> None:
        """Run the case.

        :raises Mismatch: the driver does something else than the case expects.
        :raises FormatError: the case is malformed, or beyond this runner.
        """
        check_schema_version(self.case.document)
        self._control = await self._deployment.control()
        try:
            try:
                await data.set_up_data(self.control, self.case.document.get("initialData", []))
                await self.create_entities(self.case.document.get("createEntities", []))
                await self.run_operations(self.case.test["operations"])
                await self._check()
            finally:
                await self._clean_up()
        finally:
            await self.control.close()

    async def create_entities(self, descriptions: list[Mapping[str, Any]]) -> None:
        """Make entities, in the order given."""
        for description in descriptions:
            await entities.create_entity(self.entities, description, self._makings)

    async def run_operations(self, todo: list[Mapping[str, Any]], *, in_callback: bool = False) -> None:
        """Run operations one after another.

        :param in_callback: let the driver's errors through, also expected ones.
        """
        for operation in todo:
            await self.run_operation(operation, in_callback=in_callback)

    async def run_operation(self, operation: Mapping[str, Any], *, in_callback: bool = False) -> None:
        """Run an operation and judge it.

        :param in_callback: let the driver's error through: who called decides what becomes of it.
        """
        _check_form(operation)
        if operation["object"] == "testRunner":
            await special.run_special(self, operation["name"], operation.get("arguments") or {})
            return
        call = operations.prepare(self, operation)
        result, error = UNSET, None
        try:
            result = await call()
        except (FormatError, Mismatch):
            raise
        except Exception as raised:
            if not is_driver_error(raised):
                raise
            error = raised
        unexpected = in_callback and error is not None and "expectError" not in operation
        if not operation.get("ignoreResultAndError") and not unexpected:
            self._judge(operation, result, error)
        if in_callback and error is not None:
            raise error

    def _judge(self, operation: Mapping[str, Any], result: Any, error: Exception | None) -> None:
        expected_error = operation.get("expectError")
        path = operation["name"]
        if expected_error is None and error is not None:
            raise Mismatch(f"{path} failed with {type(error).__name__}: {error}") from error
        if expected_error is not None:
            if error is None:
                raise Mismatch(f"{path} gave {result!r}, expected it to fail")
            match_error(self.matcher, expected_error, error, path)
        if "expectResult" in operation:
            self._match_result(operation, result)
        if "saveResultAsEntity" in operation:
            self.entities.save_result(operation["saveResultAsEntity"], result)

    def _match_result(self, operation: Mapping[str, Any], result: Any) -> None:
        expected, path = operation["expectResult"], f"result of {operation['name']}"
        kind = self.entities.kind(operation["object"])
        if isinstance(expected, list) and operations.returns_root_documents(kind, operation["name"]):
            self.matcher.match_array(expected, result, path, root=True)
        else:
            self.matcher.match(expected, result, path, root=True)

    async def _find_primary(self) -> None:
        """Have the runner's own connection lead to the primary, if another became it."""
        hello = await self.control.run("admin", {"hello": 1})
        if not hello["isWritablePrimary"]:
            await self.control.close()
            self._control = await self._deployment.control()

    async def _check(self) -> None:
        """Threads, events, messages, outcome."""
        for thread in self.entities.of_kind("thread"):
            await thread.wait(self.clock)
        for client in self.entities.of_kind("client"):
            await self._until_settled(client)
            client.stop_listening()
        await self._switch_fail_points_off()
        for expected in self.case.test.get("expectEvents", []):
            self._check_events(expected)
        for expected in self.case.test.get("expectLogMessages", []):
            client = self.entities.client(expected["client"])
            if client.logs is None:
                raise FormatError(f"{expected['client']} observes no log messages")
            match_messages(self.matcher, expected, client.logs.messages)
        if "outcome" in self.case.test:
            await self._find_primary()
            await data.check_outcome(self.control, self.case.test["outcome"])

    async def _until_settled(self, client: entities.ClientEntity) -> None:
        """Wait a little for the end of commands that the driver sent for itself, such as killCursors."""
        give_up_at = self.clock.seconds() + SETTLING_TIME
        while client.recorder.under_way and self.clock.seconds() < give_up_at:
            await sleep(self.clock, PAUSE)

    def _check_events(self, expected: Mapping[str, Any]) -> None:
        unknown = set(expected) - {"client", "events", "eventType", "ignoreExtraEvents"}
        if unknown:
            raise FormatError(f"no field {', '.join(sorted(unknown))} of expected events")
        recorder = self.entities.client(expected["client"]).recorder
        events = recorder.of_type(expected.get("eventType", "command"))
        extra = bool(expected.get("ignoreExtraEvents"))
        match_events(self.matcher, expected["events"], events, ignore_extra=extra, path=expected["client"])

    async def _switch_fail_points_off(self) -> None:
        """On the primary; on every member where another has become primary since."""
        names, self.fail_points[:] = sorted(set(self.fail_points)), []

        async def switch_off(control: ControlLink) -> None:
            for name in names:
                await control.run("admin", {"configureFailPoint": name, "mode": "off"})

        if not names:
            return
        hello = await self.control.run("admin", {"hello": 1})
        if hello["isWritablePrimary"]:
            await switch_off(self.control)
        else:
            await self._deployment.on_every_member(switch_off)

    async def _clean_up(self) -> None:
        """Leave neither fail points nor cursors, sessions, clients or open transactions behind."""
        await self._switch_fail_points_off()
        for cursor in self.entities.of_kind("cursor", "changeStream"):
            await cursor.close()
        for session in self.entities.of_kind("session"):
            await session.end()
        for encryption in self.entities.of_kind("clientEncryption"):
            await encryption.close()
        for client in self.entities.of_kind("client"):
            client.stop_listening()
            await client.close()
        if any("ransaction" in operation["name"] for operation in self.case.test["operations"]):
            await self.control.run("admin", {"killAllSessions": []}, *IGNORED_KILL_FAILURES)


def _check_form(operation: Mapping[str, Any]) -> None:
    """What an operation may not ask for at once."""
    known = {"name", "object", "arguments", "expectError", "expectResult", "saveResultAsEntity", "ignoreResultAndError"}
    unknown = set(operation) - known
    if unknown:
        raise FormatError(f"no field {', '.join(sorted(unknown))} of an operation")
    judged = {"expectError", "expectResult", "saveResultAsEntity"} & set(operation)
    if operation.get("ignoreResultAndError") and judged:
        raise FormatError("ignoreResultAndError and an expectation of the result")
    if "expectError" in judged and len(judged) > 1:
        raise FormatError("expectError and an expectation of the result")
    if judged and operation["object"] == "testRunner":
        raise FormatError("a special operation has no result")
