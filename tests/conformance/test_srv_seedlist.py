"""The tests of Initial DNS Seedlist Discovery, against a name server on the loopback interface.

What is checked is what DNS decides: seeds and options, or that they are refused. The servers behind the names are not
there, so "hosts" and "ping" of these tests are not run.
"""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import maybeDeferred
from twisted.names import dns
from twisted.names.common import ResolverBase
from twisted.names.error import DomainError
from twisted.names.server import DNSServerFactory
from twisted.trial.unittest import TestCase

from tests.conformance.cases import add_cases
from tests.conformance.loader import Case
from tests.conformance.polled_deployment import parse_address
from txmongo._dns import SystemResolver
from txmongo._sdam.srv import SrvResolver
from txmongo._settings import ClientSettings, parse_settings
from txmongo.errors import ConfigurationError

_DOMAIN = "test.build.10gen.cc"
_HOST = f"localhost.{_DOMAIN}"

#: The SRV records that the tests' README asks for: name, port, target.
_SERVICES = [
    *[(f"_mongodb._tcp.test{number}.{_DOMAIN}", port, _HOST) for number, port in ((1, 27017), (1, 27018))],
    *[(f"_mongodb._tcp.test{number}.{_DOMAIN}", port, _HOST) for number, port in ((2, 27018), (2, 27019))],
    *[(f"_mongodb._tcp.test{number}.{_DOMAIN}", 27017, _HOST) for number in (3, 5, 6, 7, 8, 10, 11, 20, 21)],
    (f"_mongodb._tcp.test12.{_DOMAIN}", 27017, "localhost.build.10gen.cc"),
    (f"_mongodb._tcp.test13.{_DOMAIN}", 27017, _DOMAIN),
    (f"_mongodb._tcp.test14.{_DOMAIN}", 27017, "localhost.not-test.build.10gen.cc"),
    (f"_mongodb._tcp.test15.{_DOMAIN}", 27017, "localhost.test.not-build.10gen.cc"),
    (f"_mongodb._tcp.test16.{_DOMAIN}", 27017, "localhost.test.build.not-10gen.cc"),
    (f"_mongodb._tcp.test17.{_DOMAIN}", 27017, "localhost.test.build.10gen.not-cc"),
    (f"_mongodb._tcp.test18.{_DOMAIN}", 27017, f"localhost.sub.{_DOMAIN}"),
    (f"_mongodb._tcp.test19.{_DOMAIN}", 27017, "localhost.evil.build.10gen.cc"),
    (f"_mongodb._tcp.test19.{_DOMAIN}", 27017, _HOST),
    (f"_customname._tcp.test22.{_DOMAIN}", 27017, _HOST),
    # The README names one record, the test that uses it expects two.
    (f"_customname._tcp.test22.{_DOMAIN}", 27018, _HOST),
    *[(f"_mongodb._tcp.test{number}.{_DOMAIN}", 8000, _HOST) for number in (23, 24)],
    ("_mongodb._tcp.build.10gen.cc", 27017, "build.10gen.cc"),
    (f"_mongodb._tcp.{_DOMAIN}", 27017, _DOMAIN),
]

#: The TXT records, each of one or more strings.
_TEXTS = [
    (f"test5.{_DOMAIN}", [b"replicaSet=repl0&authSource=thisDB"]),
    (f"test6.{_DOMAIN}", [b"replicaSet=repl0"]),
    (f"test6.{_DOMAIN}", [b"authSource=otherDB"]),
    (f"test7.{_DOMAIN}", [b"ssl=false"]),
    (f"test8.{_DOMAIN}", [b"authSource"]),
    (f"test10.{_DOMAIN}", [b"socketTimeoutMS=500"]),
    (f"test11.{_DOMAIN}", [b"replicaS", b"et=rep", b"l0"]),
    (f"test20.{_DOMAIN}", [b"loadBalanced=true"]),
    (f"test21.{_DOMAIN}", [b"loadBalanced=false"]),
    (f"test24.{_DOMAIN}", [b"loadBalanced=true"]),
]

#: What a test wants in the notation of the URI, and where our settings have it.
_OPTIONS = {
    "authSource": lambda settings: settings.options.get("authsource"),
    "directConnection": lambda settings: settings.direct_connection,
    "loadBalanced": lambda settings: settings.load_balanced,
    "replicaSet": lambda settings: settings.replica_set_name,
    "srvAllowedHostsSuffix": lambda settings: settings.srv_allowed_hosts_suffix,
    "srvMaxHosts": lambda settings: settings.srv_max_hosts,
    "srvServiceName": lambda settings: settings.srv_service_name,
    "ssl": lambda settings: settings.tls is not None,
}
_PARSED = {
    "auth_database": lambda settings: settings.database,
    "db": lambda settings: settings.database,
    "defaultDatabase": lambda settings: settings.database,
    "password": lambda settings: settings.credentials.password,
    "user": lambda settings: settings.credentials.username,
}


class Zone(ResolverBase):
    """Answers from the tables."""

    def _lookup(self, name: Any, cls: int, type: int, timeout: Any) -> Any:
        return maybeDeferred(self._answer, name.decode() if isinstance(name, bytes) else str(name), type)

    def _answer(self, name: str, kind: int) -> Any:
        name = name.lower()
        records: list[Any] = []
        if kind == dns.SRV:
            records = [dns.Record_SRV(0, 5, port, target) for each, port, target in _SERVICES if each == name]
        elif kind == dns.TXT:
            records = [dns.Record_TXT(*strings) for each, strings in _TEXTS if each == name]
        if not records:
            raise DomainError(name)
        return [dns.RRHeader(name, kind, dns.IN, 86400, record, auth=True) for record in records], [], []


class LoopbackResolver(SystemResolver):
    """Asks one name server on the loopback interface."""

    def __init__(self, reactor: Any, port: int) -> None:
        super().__init__(reactor)
        self._port = port

    def name_servers(self) -> list[tuple[str, int]]:
        return [("127.0.0.1", self._port)]


class SeedlistTests(TestCase):
    """What a mongodb+srv connection string comes to."""

    def setUp(self) -> None:
        factory = DNSServerFactory(clients=[Zone()])
        factory.noisy = False
        listening: Any = reactor
        self.port = listening.listenUDP(0, dns.DNSDatagramProtocol(factory), interface="127.0.0.1")
        self.addCleanup(self.port.stopListening)

    async def discover(self, uri: str) -> ClientSettings:
        """The settings that DNS completed."""
        resolver = SrvResolver(LoopbackResolver(reactor, self.port.getHost().port))
        settings, ttl = await resolver.discover(parse_settings(uri))
        self.assertEqual(ttl, 86400)
        return settings

    async def run_case(self, case: Case) -> None:
        """Compare seeds and options, or see an error."""
        test = case.test
        if test.get("error"):
            try:
                settings = await self.discover(test["uri"])
            except (ConfigurationError, ValueError):
                return
            self.fail(f"{settings} instead of an error")
        settings = await self.discover(test["uri"])
        if "seeds" in test:
            self.assertEqual(set(settings.seeds), {parse_address(seed) for seed in test["seeds"]})
        if "numSeeds" in test:
            self.assertEqual(len(settings.seeds), test["numSeeds"])
        for name, value in test.get("options", {}).items():
            self.assertEqual(_OPTIONS[name](settings), value, name)
        for name, value in test.get("parsed_options", {}).items():
            self.assertEqual(_PARSED[name](settings), value, name)


def _run(self: SeedlistTests, case: Case) -> Any:
    return self.run_case(case)


add_cases(SeedlistTests, "srv_seedlist", _run)
