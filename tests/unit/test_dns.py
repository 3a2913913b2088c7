"""Asking the name servers of the system."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.names import dns
from twisted.names.error import DNSNameError, DNSServerError
from twisted.trial.unittest import SynchronousTestCase

from txmongo._dns import SystemResolver, canonical_host


def record(name: str, data: Any) -> dns.RRHeader:
    """A record of a name."""
    return dns.RRHeader(name, data.TYPE, dns.IN, 60, data)


class Zone(SystemResolver):
    """Answers look-ups from a table; a name that is not in it does not exist.

    :param records: by name, with the method by which they are asked for.
    """

    def __init__(self, records: Mapping[tuple[str, str], Any], configuration: str = "nowhere") -> None:
        super().__init__(None, Path(configuration))
        self.asked: list[str] = []
        self._records = records

    def _look_up(self, method: str, name: str, timeout: Sequence[int]) -> Deferred[Any]:
        self.asked.append(name)
        answer = self._records.get((method, name), DNSNameError("no such name"))
        if isinstance(answer, Deferred):
            return answer
        return fail(answer) if isinstance(answer, Exception) else succeed((answer, [], []))


class FakeReactor:
    """A clock that pretends to connect."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.callLater = self.clock.callLater
        self.disconnected = 0

    def listenUDP(self, *arguments: Any) -> None:
        """Not used."""

    def connectTCP(self, *arguments: Any) -> FakeReactor:
        return self

    def disconnect(self) -> None:
        self.disconnected += 1


class SystemResolverTests(SynchronousTestCase):
    """Which name servers are asked, and what is left of a look-up."""

    def test_look_ups(self) -> None:
        """Time limits and connections of a look-up are gone at its end."""
        reactor = FakeReactor()

        class Careless:
            def lookupService(self, name: str, timeout: Sequence[int]) -> Deferred[Any]:
                look_up.callLater(5, print)
                look_up.callLater(0, lambda: None)
                look_up.connectTCP("127.0.0.1", 53, None)
                reactor.clock.advance(0)
                return succeed(([], [], []))

            lookupText = lookupAddress = lookupIPV6Address = lookupPointer = lookupService

        class Resolver(SystemResolver):
            def _resolver(self, reactor: Any) -> Any:
                nonlocal look_up
                look_up = reactor
                return Careless()

        look_up: Any = None
        resolver = Resolver(reactor)
        self.successResultOf(resolver.lookupService("a"))
        self.successResultOf(resolver.lookupText("a"))
        self.successResultOf(resolver.lookupAddress("a"))
        self.successResultOf(resolver.lookupIPV6Address("a"))
        self.successResultOf(resolver.lookupPointer("a"))
        self.assertEqual(reactor.clock.getDelayedCalls(), [])
        self.assertEqual(reactor.disconnected, 5)

    def test_resolver(self) -> None:
        """A look-up asks the name servers through a resolver of its own."""
        resolver = SystemResolver(FakeReactor(), Path("nowhere"))
        self.assertEqual(resolver._resolver(FakeReactor()).servers, [("127.0.0.1", 53)])  # type: ignore[arg-type]

    def test_configuration(self) -> None:
        """Those of resolv.conf, else the local one."""
        path = Path(self.mktemp())
        path.write_text("# comment\nsearch example.com\nnameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver\n")
        reactor: Any = None
        self.assertEqual(SystemResolver(reactor, path).name_servers(), [("192.0.2.1", 53), ("192.0.2.2", 53)])
        self.assertEqual(SystemResolver(reactor, path / "nowhere").name_servers(), [("127.0.0.1", 53)])

    def test_searched(self) -> None:
        """A name without a dot may be one below the domains of the last line that has some."""
        path = Path(self.mktemp())
        path.write_text("domain example.net\nsearch a.example b.example\n\n")
        reactor: Any = None
        resolver = SystemResolver(reactor, path)
        self.assertEqual(resolver.candidates("db"), ["db.a.example", "db.b.example", "db"])
        self.assertEqual(resolver.candidates("db.x"), ["db.x"])
        self.assertEqual(SystemResolver(reactor, path / "nowhere").candidates("db"), ["db"])


class CanonicalTests(SynchronousTestCase):
    """By what name a host is known."""

    records: Mapping[tuple[str, str], Any] = {
        ("lookupAddress", "db.example"): [
            record("two.example", dns.Record_A("192.0.2.1")),
            record("DB.example", dns.Record_CNAME("One.example")),
            record("one.example", dns.Record_CNAME("two.example")),
            record("two.example", dns.Record_A("192.0.2.2")),
        ],
        ("lookupPointer", "1.2.0.192.in-addr.arpa"): [
            record("alias", dns.Record_CNAME("other")),
            record("1.2.0.192.in-addr.arpa", dns.Record_PTR("Back.Example")),
        ],
        ("lookupAddress", "six.example"): [],
        ("lookupIPV6Address", "six.example"): [record("six.example", dns.Record_AAAA("2001:db8::1"))],
        ("lookupPointer", ipaddress.ip_address("2001:db8::1").reverse_pointer): [],
        ("lookupAddress", "circle.example"): [
            record("circle.example", dns.Record_CNAME("other.example")),
            record("other.example", dns.Record_CNAME("circle.example")),
            record("other.example", dns.Record_A("192.0.2.9")),
        ],
        ("lookupAddress", "broken.example"): DNSServerError("broken"),
        ("lookupAddress", "db.search.example"): [record("db.search.example", dns.Record_A("192.0.2.9"))],
    }

    def name(self, host: str, mode: bool | str, configuration: str = "nowhere") -> str:
        """The name."""
        zone = Zone(self.records, configuration)
        return self.successResultOf(Deferred.fromCoroutine(canonical_host(zone, host, mode)))

    def test_forward(self) -> None:
        """It is behind the aliases, in lower case."""
        for host, name in (
            ("db.example", "two.example"),
            ("six.example", "six.example"),
            ("circle.example", "circle.example"),
            ("192.0.2.1", "192.0.2.1"),
        ):
            self.assertEqual(self.name(host, "forward"), name)

    def test_reverse(self) -> None:
        """Or it is that of the first address; without one what was found before is kept."""
        for mode in ("forwardAndReverse", True):
            self.assertEqual(self.name("db.example", mode), "back.example")
            self.assertEqual(self.name("192.0.2.1", mode), "back.example")
            self.assertEqual(self.name("six.example", mode), "six.example")
            self.assertEqual(self.name("circle.example", mode), "circle.example")

    def test_searched(self) -> None:
        """A name without a dot is looked for below the domains that are searched."""
        path = Path(self.mktemp())
        path.write_text("search none.example search.example\n")
        self.assertEqual(self.name("db", "forward", str(path)), "db.search.example")

    def test_unknown(self) -> None:
        """If there is no answer the name stays as it is."""
        for host in ("nowhere.example", "broken.example", "Unknown"):
            self.assertEqual(self.name(host, True), host)

    def test_not_wanted(self) -> None:
        """Nobody is asked who need not be."""
        for mode in (False, "none"):
            zone = Zone(self.records)
            looking = Deferred.fromCoroutine(canonical_host(zone, "db.example", mode))
            self.assertEqual((self.successResultOf(looking), zone.asked), ("db.example", []))

    def test_cancelled(self) -> None:
        """Who gives up gets no name, at whatever stage."""
        for waited_for in (("lookupAddress", "db.example"), ("lookupPointer", "1.2.0.192.in-addr.arpa")):
            waiting: Deferred[Any] = Deferred()
            zone = Zone({**self.records, waited_for: waiting})
            looking = Deferred.fromCoroutine(canonical_host(zone, "db.example", True))
            self.assertNoResult(looking)
            looking.cancel()
            self.failureResultOf(looking, CancelledError)
