"""Asks the name servers of this system, by ``twisted.names``: what was asked for stays in the answers as it came."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.names import dns
from twisted.names.client import Resolver

__all__ = ["DNS_TIMEOUTS", "Answers", "SystemResolver"]

Answers = tuple[Sequence[Any], Sequence[Any], Sequence[Any]]

#: Seconds for the first try of a DNS query and for each further one.
DNS_TIMEOUTS = (1, 2, 4, 8)


class _LookUpReactor:
    """The reactor as one look-up sees it; what the look-up has begun by its end is undone.

    A ``twisted.names`` resolver leaves the time limits of queries running that were cancelled, and connections open
    that it made for long answers.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._calls: list[IDelayedCall] = []
        self._connectors: list[Any] = []
        self.listenUDP = reactor.listenUDP

    def callLater(self, *arguments: Any) -> IDelayedCall:
        call: IDelayedCall = self._reactor.callLater(*arguments)
        self._calls.append(call)
        return call

    def connectTCP(self, *arguments: Any) -> Any:
        connector = self._reactor.connectTCP(*arguments)
        self._connectors.append(connector)
        return connector

    def finish(self, result: Any) -> Any:
        for call in self._calls:
            if call.active():
                call.cancel()
        for connector in self._connectors:
            connector.disconnect()
        return result


class SystemResolver:
    """Asks the name servers of this system, and leaves nothing behind after a look-up.

    :param reactor: for UDP, TCP and time.
    :param configuration: a file in the format of resolv.conf, read at each look-up; without one the local host is
        asked.
    """

    def __init__(self, reactor: Any, configuration: Path = Path("/etc/resolv.conf")) -> None:
        self._reactor = reactor
        self._configuration = configuration

    def lookupService(self, name: str, timeout: Sequence[int] = DNS_TIMEOUTS) -> Deferred[Answers]:
        """The SRV records of a name."""
        reactor = _LookUpReactor(self._reactor)
        answered: Deferred[Answers] = self._resolver(reactor).lookupService(name, timeout)
        return answered.addBoth(reactor.finish)

    def lookupText(self, name: str, timeout: Sequence[int] = DNS_TIMEOUTS) -> Deferred[Answers]:
        """The TXT records of a name."""
        reactor = _LookUpReactor(self._reactor)
        answered: Deferred[Answers] = self._resolver(reactor).lookupText(name, timeout)
        return answered.addBoth(reactor.finish)

    def _resolver(self, reactor: _LookUpReactor) -> Resolver:
        return Resolver(servers=self.name_servers(), reactor=reactor)

    def name_servers(self) -> list[tuple[str, int]]:
        """Address and port of the name servers that are asked."""
        try:
            lines = self._configuration.read_text("ascii", "replace").splitlines()
        except OSError:
            lines = []
        words = [line.split() for line in lines]
        servers = [line[1] for line in words if len(line) > 1 and line[0] == "nameserver"]
        return [(server, dns.PORT) for server in servers or ["127.0.0.1"]]
