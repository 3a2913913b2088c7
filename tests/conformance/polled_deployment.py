"""A topology whose servers answer what a specification test says: no network, no real time.

The monitors are the real ones, told to poll; what is fake is the connection below them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred

from tests.unit.sdam.fakes import Deployment
from txmongo._cmap.pool import Pool
from txmongo._sdam.monitor import MonitorState
from txmongo.errors import AutoReconnect, error_from_reply
from txmongo.types import Address

__all__ = ["PolledDeployment", "parse_address"]


def parse_address(text: str) -> Address:
    """An address as the tests write it: ``a:27017``, ``[::1]:27017`` or only a name."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit():
        host, port = text, "27017"
    return host.strip("[]").lower(), int(port)


class PolledDeployment(Deployment):
    """A deployment with real pools, whose checks are answered one by one; no pool ever gets a connection."""

    def __init__(self, uri: str, **keywords: Any) -> None:
        super().__init__(uri, self._real_pool, serverMonitoringMode="poll", **keywords)

    def _real_pool(self, address: Address) -> Pool:
        return Pool(address, self.settings, clock=self.clock, connect=Deferred)

    def respond(self, address: Address, document: Mapping[str, Any]) -> None:
        """Let a server answer a check; an empty document is a network error.

        A server that is no part of the topology (any more) is not checked: then nothing happens.
        """
        server = self.topology.servers.get(address)
        if server is None or server.monitor is None:
            return
        if server.monitor.state is MonitorState.WAITING:
            server.monitor.request_check()
            self.clock.advance(self.settings.min_heartbeat_interval)
        if server.monitor.state is MonitorState.CONNECTING:
            self._finish_connecting(address, document)
        else:
            self._answer(address, document)

    def _finish_connecting(self, address: Address, document: Mapping[str, Any]) -> None:
        error = AutoReconnect("network error") if not document else error_from_reply(document)
        if error is not None:
            self.connections.refuse(address, error)
        else:
            self.connections.open(address, document)

    def _answer(self, address: Address, document: Mapping[str, Any]) -> None:
        protocol = self.connections.protocols[address][-1]
        if document:
            protocol.answer(document)
        else:
            protocol.lose()
