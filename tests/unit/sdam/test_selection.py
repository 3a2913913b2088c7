"""Choosing servers, and saying why there is none."""

from __future__ import annotations

from random import Random
from typing import Any

from pymongo.read_preferences import Nearest, ReadPreference, Secondary, SecondaryPreferred
from pymongo.server_description import ServerDescription
from pymongo.server_selectors import any_server_selector, writable_server_selector
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.sdam.fakes import A, B, C, Deployment, FakePool, ghost, primary, secondary, standalone
from txmongo._sdam.selection import choose, lone_ghost, selection_timeout, suitable_servers
from txmongo._sdam.server import Server
from txmongo.errors import AutoReconnect, ConfigurationError, OperationFailure
from txmongo.types import Address

HOSTS = ("a:27017", "b:27017", "c:27017")


def replica_set(**keywords: Any) -> Deployment:
    """A primary and two secondaries."""
    deployment = Deployment("mongodb://a", **keywords)
    deployment.discover(
        a=primary(*HOSTS, tags={"dc": "ny"}),
        b=secondary(*HOSTS, tags={"dc": "ny"}),
        c=secondary(*HOSTS, tags={"dc": "sf"}),
    )
    return deployment


class SuitableTests(SynchronousTestCase):
    """Read preferences over a replica set."""

    def suitable(self, selector: Any, **keywords: Any) -> list[Address]:
        return sorted(suitable_servers(replica_set().topology.description, selector, **keywords))

    def test_modes(self) -> None:
        """Each mode takes the members it says."""
        self.assertEqual(self.suitable(ReadPreference.PRIMARY), [A])
        self.assertEqual(self.suitable(ReadPreference.SECONDARY), [B, C])
        self.assertEqual(self.suitable(ReadPreference.NEAREST), [A, B, C])
        self.assertEqual(self.suitable(writable_server_selector), [A])

    def test_tags(self) -> None:
        """Tags narrow it down."""
        self.assertEqual(self.suitable(Nearest(tag_sets=[{"dc": "ny"}])), [A, B])

    def test_deprioritized(self) -> None:
        """A deprioritized server is taken only if it is the only one."""
        self.assertEqual(self.suitable(ReadPreference.NEAREST, deprioritized=[A, B]), [C])
        self.assertEqual(self.suitable(ReadPreference.PRIMARY, deprioritized=[A]), [A])
        self.assertEqual(self.suitable(ReadPreference.SECONDARY, deprioritized=[("elsewhere", 1)]), [B, C])

    def test_custom(self) -> None:
        """The server_selector option has the last word."""

        def last(servers: list[ServerDescription]) -> list[ServerDescription]:
            return sorted(servers, key=lambda server: server.address)[-1:]

        self.assertEqual(self.suitable(ReadPreference.NEAREST, custom=last), [C])

    def test_incompatible(self) -> None:
        """One server that is too old is a matter for whoever configured the client."""
        deployment = Deployment()
        deployment.discover(a=standalone(maxWireVersion=6))
        with self.assertRaises(ConfigurationError):
            suitable_servers(deployment.topology.description, ReadPreference.PRIMARY)

    def test_staleness_too_small(self) -> None:
        """maxStalenessSeconds below what can be told is refused."""
        with self.assertRaises(ConfigurationError):
            self.suitable(SecondaryPreferred(max_staleness=1))


class ChooseTests(SynchronousTestCase):
    """Among suitable servers."""

    def servers(self, *counts: int) -> list[Server]:
        result = []
        for number, count in enumerate(counts):
            pool = FakePool(("s", number), [])
            pool.operation_count = count
            result.append(Server(("s", number), ServerDescription(("s", number)), pool, None))  # type: ignore[arg-type]
        return result

    def test_only(self) -> None:
        """The only one is taken however busy it is."""
        (server,) = self.servers(99)
        self.assertIs(choose([server], Random(1)), server)

    def test_less_busy(self) -> None:
        """Of two the less busy one is taken."""
        one, two = self.servers(3, 2)
        self.assertEqual({choose([one, two], Random(seed)) for seed in range(20)}, {two})

    def test_two_different(self) -> None:
        """The two that are compared are never the same: the busiest of three is never taken."""
        busiest, *others = self.servers(5, 1, 1)
        chosen = {choose([busiest, *others], Random(seed)) for seed in range(100)}
        self.assertEqual(chosen, set(others))


class GhostTests(SynchronousTestCase):
    """A member of a set that was not initiated."""

    def test_alone(self) -> None:
        """It is found if it is the only server."""
        deployment = Deployment()
        deployment.discover(a=ghost())
        self.assertEqual(lone_ghost(deployment.topology.description), A)

    def test_others(self) -> None:
        """Among others, or once it is something else, there is no lone ghost."""
        two = Deployment("mongodb://a,b")
        two.discover(a=ghost(), b=ghost())
        other = Deployment()
        other.discover(a=primary())
        self.assertIsNone(lone_ghost(two.topology.description))
        self.assertIsNone(lone_ghost(other.topology.description))


class MessageTests(SynchronousTestCase):
    """Why there is no server."""

    def message(self, deployment: Deployment, selector: Any, **keywords: Any) -> str:
        return str(selection_timeout(deployment.topology.description, selector, "insert", 30.0, **keywords))

    def test_servers_and_errors(self) -> None:
        """What was wanted, how long it was waited for, and each server with its error."""
        deployment = Deployment("mongodb://user:secret@a,b/?replicaSet=rs")
        deployment.open()
        deployment.connections.refuse(A, AutoReconnect("a:27017: connection refused"))
        deployment.connections.open(B, secondary("a:27017", "b:27017"))
        message = self.message(deployment, ReadPreference.PRIMARY)
        self.assertEqual(
            message,
            "No server for insert within 30 s: wanted primary, the topology is ReplicaSetNoPrimary of set 'rs': "
            "a:27017 is Unknown (AutoReconnect: a:27017: connection refused); b:27017 is RSSecondary",
        )
        self.assertNotIn("secret", message)
        deployment.close()

    def test_errors_attached(self) -> None:
        """The servers' errors are there as exceptions too."""
        deployment = Deployment()
        deployment.open()
        error = AutoReconnect("refused")
        deployment.connections.refuse(A, error)
        timeout = selection_timeout(deployment.topology.description, ReadPreference.PRIMARY, "", 1.0)
        self.assertEqual(timeout.errors, [error])
        self.assertTrue(timeout.timeout)

    def test_reply_is_not_repeated(self) -> None:
        """Of a server's error reply only its message is shown."""
        deployment = Deployment()
        deployment.open()
        details = {"ok": 0, "errmsg": "no", "code": 1, "$clusterTime": "noise"}
        deployment.connections.refuse(A, OperationFailure("no", 1, details))
        self.assertIn("a:27017 is Unknown (OperationFailure: no)", self.message(deployment, ReadPreference.PRIMARY))

    def test_wanted(self) -> None:
        """Read preferences are shown with all they ask for, other selectors by what they are."""
        deployment = Deployment()
        preference = Secondary(tag_sets=[{"dc": "ny"}], max_staleness=120)
        for selector, wanted in (
            (preference, "wanted secondary with {'tags': [{'dc': 'ny'}], 'maxStalenessSeconds': 120}"),
            (writable_server_selector, "wanted a writable server"),
            (any_server_selector, "wanted any server"),
            (test_selector, "wanted test_selector"),
            (UnhashableSelector(), "wanted UnhashableSelector"),
        ):
            self.assertIn(wanted, self.message(deployment, selector))
        self.assertIn("wanted the server b:27017", self.message(deployment, ReadPreference.PRIMARY, address=B))

    def test_no_server(self) -> None:
        """A topology without servers is named as that."""
        self.assertIn("no server is known", self.message(Deployment(), ReadPreference.PRIMARY))


class UnhashableSelector:
    """A selector that cannot be looked up in a dict."""

    __hash__ = None  # type: ignore[assignment]


def test_selector(selection: Any) -> Any:
    """A selector that somebody wrote."""
    return selection
