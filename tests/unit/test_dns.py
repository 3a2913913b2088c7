"""Asking the name servers of the system."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txmongo._dns import SystemResolver


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

            lookupText = lookupService

        class Resolver(SystemResolver):
            def _resolver(self, reactor: Any) -> Any:
                nonlocal look_up
                look_up = reactor
                return Careless()

        look_up: Any = None
        resolver = Resolver(reactor)
        self.successResultOf(resolver.lookupService("a"))
        self.successResultOf(resolver.lookupText("a"))
        self.assertEqual(reactor.clock.getDelayedCalls(), [])
        self.assertEqual(reactor.disconnected, 2)

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
