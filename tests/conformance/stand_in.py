"""A server that says it is MongoDB 8.0 and does what is new there by the means of the older one behind it.

Cases of ``bulkWrite`` and of search indexes want servers of MongoDB 8.0 and 7.0. What a ``bulkWrite`` command does is
the sum of insert, update and delete commands, so that an older server can be made to do it, on the data and in the
transactions that it has; every other command is handed on as it is. Fail points that name ``bulkWrite`` are this
server's own. Search indexes are refused in the words in which a server without Atlas refuses them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
from bson.int64 import Int64
from twisted.internet import defer

from tests.conformance.control import CommandFailed, ControlLink
from txmongo.testing import Behaviour, FakeServer, Mongod, ReceivedCommand

__all__ = ["StandIn"]

WIRE_VERSION = 25
HELLO = frozenset({"hello", "isMaster", "ismaster"})
SEARCH = frozenset({"createSearchIndexes", "updateSearchIndex", "dropSearchIndex"})
NO_SEARCH = {"ok": 0.0, "errmsg": "search index commands are only supported with Atlas", "code": 31082}
#: What the commands that are made of a ``bulkWrite`` have from it.
IN_COMMON = ("lsid", "txnNumber", "autocommit", "writeConcern", "bypassDocumentValidation", "let", "comment")
OF_ERRORS = ("code", "errmsg", "errInfo", "keyPattern", "keyValue")
FIRST_ONLY = ("startTransaction", "readConcern")
#: The fields of hello by which a driver would talk to the server behind, or in ways that this one does not know.
NOT_HERE = frozenset({"topologyVersion", "compression", "speculativeAuthenticate", "saslSupportedMechs"})


@attrs.define
class _FailPoint:
    """A fail point for some commands that are this server's own."""

    commands: frozenset[str]
    times: float
    data: Mapping[str, Any]

    def hits(self, name: str) -> bool:
        """Whether this command is to fail; counts it."""
        if name not in self.commands or self.times <= 0:
            return False
        self.times -= 1
        return True

    def error(self) -> dict[str, Any]:
        """The reply of a command that fails."""
        return {"ok": 0.0, "errmsg": "a fail point", "code": self.data["errorCode"], **self.beside()}

    def beside(self) -> dict[str, Any]:
        """What it puts into a reply."""
        return {name: self.data[name] for name in ("writeConcernError", "errorLabels") if name in self.data}


@attrs.define
class _Tally:
    """What a ``bulkWrite`` has done so far."""

    counts: dict[str, int] = attrs.Factory(
        lambda: dict.fromkeys(("nErrors", "nInserted", "nUpserted", "nMatched", "nModified", "nDeleted"), 0)
    )
    results: list[dict[str, Any]] = attrs.Factory(list)
    last_reply: Mapping[str, Any] = attrs.Factory(dict)

    def add(self, index: int, kind: str, reply: Mapping[str, Any]) -> None:
        """Take the reply to one write."""
        self.last_reply = reply
        if reply.get("writeErrors"):
            error = reply["writeErrors"][0]
            kept = {
                name: error[name] for name in ("code", "errmsg", "errInfo", "keyPattern", "keyValue") if name in error
            }
            self.results.append({"ok": 0.0, "idx": index, "n": 0, **kept})
            self.counts["nErrors"] += 1
            return
        result = {"ok": 1.0, "idx": index, "n": reply["n"]}
        if kind == "insert":
            self.counts["nInserted"] += reply["n"]
        elif kind == "delete":
            self.counts["nDeleted"] += reply["n"]
        else:
            upserted = reply.get("upserted", [])
            result["nModified"] = reply["nModified"]
            if upserted:
                result["upserted"] = {"_id": upserted[0]["_id"]}
            self.counts["nUpserted"] += len(upserted)
            self.counts["nMatched"] += reply["n"] - len(upserted)
            self.counts["nModified"] += reply["nModified"]
        self.results.append(result)

    def reply(self, *, errors_only: bool) -> dict[str, Any]:
        """The reply to the whole command."""
        shown = [result for result in self.results if not errors_only or not result["ok"]]
        cursor = {"id": Int64(0), "ns": "admin.$cmd.bulkWrite", "firstBatch": shown}
        passed_on = ("operationTime", "$clusterTime", "recoveryToken", "writeConcernError")
        beside = {name: self.last_reply[name] for name in passed_on if name in self.last_reply}
        return {"ok": 1.0, "cursor": cursor, **self.counts, **beside}


class StandIn(FakeServer):
    """The server in front of a :class:`~txmongo.testing.Mongod`, without authentication."""

    def __init__(self, reactor: Any, behind: Mongod) -> None:
        super().__init__()
        self._reactor = reactor
        self._behind = behind
        self._fail_point: _FailPoint | None = None
        self._under_way: set[defer.Deferred[None]] = set()
        #: What was answered to retryable writes: a server does each once.
        self._done: dict[tuple[bytes, int], dict[str, Any]] = {}

    def stop(self) -> defer.Deferred[None]:
        """Wait for what is being done, too, as the answer of that may no longer be waited for."""
        return super().stop().addCallback(lambda _: defer.gatherResults(self._under_way)).addCallback(lambda _: None)

    def _answer_to(self, command: ReceivedCommand) -> Any:
        self.received.append(command)
        if command.name == "configureFailPoint" and self._is_own(command.document):
            return {}
        fail_point = self._fail_point
        hit = fail_point is not None and fail_point.hits(command.name)
        if hit and fail_point is not None:
            if fail_point.data.get("closeConnection"):
                return Behaviour.HANG_UP
            if "errorCode" in fail_point.data:
                return fail_point.error()
        if command.name in SEARCH or "$listSearchIndexes" in str(command.document.get("pipeline", "")):
            return NO_SEARCH
        extra = {}
        if hit and fail_point is not None:
            extra = {
                name: fail_point.data[name] for name in ("writeConcernError", "errorLabels") if name in fail_point.data
            }
        return defer.Deferred.fromCoroutine(self._carry_out(command, extra))

    def _is_own(self, document: Mapping[str, Any]) -> bool:
        """Take a fail point that concerns ``bulkWrite``, and forget it when it is switched off."""
        data = document.get("data", {})
        if document["mode"] == "off":
            self._fail_point = None
            return False
        if "bulkWrite" not in data.get("failCommands", ()):
            return False
        mode = document["mode"]
        times = mode["times"] if isinstance(mode, Mapping) else float("inf")
        self._fail_point = _FailPoint(frozenset(data["failCommands"]), times, data)
        return True

    async def _carry_out(self, command: ReceivedCommand, extra: Mapping[str, Any]) -> Mapping[str, Any]:
        done: defer.Deferred[None] = defer.Deferred()
        self._under_way.add(done)
        try:
            return await self._ask(command, extra)
        finally:
            self._under_way.discard(done)
            done.callback(None)

    async def _ask(self, command: ReceivedCommand, extra: Mapping[str, Any]) -> Mapping[str, Any]:
        # Of its own for every command: a link is one that waits for one reply.
        link = await ControlLink.open(self._reactor, self._behind.address)
        try:
            if command.name == "bulkWrite":
                return {**await self._once(link, command.document), **extra}
            reply = await link.run(command.database, command.document)
            return self._as_own_hello(reply) if command.name in HELLO else reply
        except CommandFailed as error:
            return error.reply
        finally:
            await link.close()

    def _as_own_hello(self, reply: Mapping[str, Any]) -> dict[str, Any]:
        own = {name: value for name, value in reply.items() if name not in NOT_HERE}
        own["maxWireVersion"] = WIRE_VERSION
        if "setName" in own:
            host, port = self.address
            own |= {"hosts": [f"{host}:{port}"], "me": f"{host}:{port}"}
            if "primary" in own:
                own["primary"] = f"{host}:{port}"
        return own

    async def _once(self, link: ControlLink, document: Mapping[str, Any]) -> dict[str, Any]:
        """Do a ``bulkWrite``; of a retryable one that was done already, what it was answered."""
        if "txnNumber" not in document or "autocommit" in document:
            return await self._bulk_write(link, document)
        key = bytes(document["lsid"]["id"]), document["txnNumber"]
        if key not in self._done:
            self._done[key] = await self._bulk_write(link, document)
        return self._done[key]

    async def _bulk_write(self, link: ControlLink, document: Mapping[str, Any]) -> dict[str, Any]:
        tally = _Tally()
        for index, op in enumerate(document["ops"]):
            kind = next(iter(op))
            namespace = document["nsInfo"][op[kind]]["ns"]
            database, _, collection = namespace.partition(".")
            command = await self._single(link, kind, database, collection, op)
            names = IN_COMMON if index else IN_COMMON + FIRST_ONLY
            command |= {name: document[name] for name in names if name in document}
            if kind == "insert":
                command.pop("let", None)
            elif kind == "delete":
                command.pop("bypassDocumentValidation", None)
            if "autocommit" not in document:
                # One transaction number is for one of these commands, not for all of them.
                command.pop("txnNumber", None)
            tally.add(index, kind, await link.run(database, command))
            if tally.counts["nErrors"] and document["ordered"]:
                break
        return tally.reply(errors_only=document["errorsOnly"])

    async def _single(
        self, link: ControlLink, kind: str, database: str, collection: str, op: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The command of one write."""
        if kind == "insert":
            return {"insert": collection, "documents": [op["document"]]}
        options = {name: op[name] for name in ("upsert", "arrayFilters", "hint", "collation") if name in op}
        query = op["filter"]
        if kind == "delete":
            limit = 0 if op.get("multi") else 1
            return {"delete": collection, "deletes": [{"q": query, "limit": limit, **options}]}
        if "sort" in op:
            found = await link.run(database, {"find": collection, "filter": query, "sort": op["sort"], "limit": 1})
            query = {"_id": found["cursor"]["firstBatch"][0]["_id"]}
        update = {"q": query, "u": op["updateMods"], "multi": op.get("multi", False), **options}
        return {"update": collection, "updates": [update]}
