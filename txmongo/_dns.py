"""Asks the name servers of this system, by ``twisted.names``, and finds out by what name a host is known to them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.names import dns
from twisted.names.client import Resolver
from twisted.names.error import DomainError

__all__ = ["DNS_TIMEOUTS", "Answers", "SystemResolver", "canonical_host"]

Answers = tuple[Sequence[Any], Sequence[Any], Sequence[Any]]

#: Seconds for the first try of a DNS query and for each further one.
DNS_TIMEOUTS = (1, 2, 4, 8)
#: The same where there is a name to fall back on.
_NAME_TIMEOUTS = (1, 2)


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
        return self._look_up("lookupService", name, timeout)

    def lookupText(self, name: str, timeout: Sequence[int] = DNS_TIMEOUTS) -> Deferred[Answers]:
        """The TXT records of a name."""
        return self._look_up("lookupText", name, timeout)

    def lookupAddress(self, name: str, timeout: Sequence[int] = DNS_TIMEOUTS) -> Deferred[Answers]:
        """The A records of a name, and the aliases on the way to them."""
        return self._look_up("lookupAddress", name, timeout)

    def lookupIPV6Address(self, name: str, timeout: Sequence[int] = DNS_TIMEOUTS) -> Deferred[Answers]:
        """The AAAA records of a name, and the aliases on the way to them."""
        return self._look_up("lookupIPV6Address", name, timeout)

    def lookupPointer(self, name: str, timeout: Sequence[int] = DNS_TIMEOUTS) -> Deferred[Answers]:
        """The PTR records of a name."""
        return self._look_up("lookupPointer", name, timeout)

    def _look_up(self, method: str, name: str, timeout: Sequence[int]) -> Deferred[Answers]:
        reactor = _LookUpReactor(self._reactor)
        answered: Deferred[Answers] = getattr(self._resolver(reactor), method)(name, timeout)
        return answered.addBoth(reactor.finish)

    def _resolver(self, reactor: _LookUpReactor) -> Resolver:
        return Resolver(servers=self.name_servers(), reactor=reactor)

    def name_servers(self) -> list[tuple[str, int]]:
        """Address and port of the name servers that are asked."""
        servers = [line[1] for line in self._lines() if line[0] == "nameserver"]
        return [(server, dns.PORT) for server in servers or ["127.0.0.1"]]

    def candidates(self, name: str) -> list[str]:
        """The names that may be meant by one without a dot: those below the domains that are searched come first."""
        if "." in name:
            return [name]
        domains = [line[1:] for line in self._lines() if line[0] in ("search", "domain")]
        return [*(f"{name}.{domain}" for domain in (domains[-1] if domains else ())), name]

    def _lines(self) -> list[list[str]]:
        """The words of the lines that say something."""
        try:
            lines = self._configuration.read_text("ascii", "replace").splitlines()
        except OSError:
            return []
        return [words for words in map(str.split, lines) if len(words) > 1]


async def canonical_host(resolver: SystemResolver, host: str, mode: bool | str) -> str:
    """The name that a host is known by, as the specification's "Hostname Canonicalization" finds it.

    :param mode: CANONICALIZE_HOST_NAME.
    :returns: the name; if the look-up fails it is ``host``, and if only that of its address does, the one found so far.
    """
    if mode in (False, "none"):
        return host
    try:
        name, address = await _forward(resolver, host)
    except CancelledError:
        raise
    except Exception:
        return host
    if mode == "forward":
        return name
    try:
        records, _, _ = await resolver.lookupPointer(ip_address(address).reverse_pointer, timeout=_NAME_TIMEOUTS)
    except CancelledError:
        raise
    except Exception:
        return name
    return next((_name(record.payload.name) for record in records if record.type == dns.PTR), name)


async def _forward(resolver: SystemResolver, host: str) -> tuple[str, str]:
    """The name behind a name's aliases, and its first address."""
    with suppress(ValueError):
        return host, str(ip_address(host))
    for name in resolver.candidates(host):
        for look_up in (resolver.lookupAddress, resolver.lookupIPV6Address):
            with suppress(DomainError):
                records, _, _ = await look_up(name, timeout=_NAME_TIMEOUTS)
                addresses = [record.payload.address for record in records if record.type in (dns.A, dns.AAAA)]
                aliases = {_name(each.name): _name(each.payload.name) for each in records if each.type == dns.CNAME}
                if addresses:
                    name = _name(name)
                    while name in aliases:
                        name = aliases.pop(name)
                    return name, str(ip_address(addresses[0]))
    raise DomainError(host)


def _name(name: Any) -> str:
    return str(name).rstrip(".").lower()
