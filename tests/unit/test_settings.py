"""What the URI and the keywords mean together: which wins, what is implied, what is refused and how that is said."""

from __future__ import annotations

import sys
import warnings
from typing import Any

from bson.binary import UuidRepresentation
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.son import SON
from OpenSSL import SSL
from pymongo import monitoring
from pymongo.driver_info import DriverInfo
from pymongo.monitoring import CommandListener
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import Nearest, ReadPreference, Secondary, SecondaryPreferred
from pymongo.server_api import ServerApi
from pymongo.write_concern import WriteConcern
from twisted.internet.ssl import ClientContextFactory
from twisted.trial.unittest import SynchronousTestCase

from txmongo._options import connection_string
from txmongo._settings import ClientSettings, parse_settings
from txmongo.errors import ConfigurationError, InvalidURI

PLAIN = "mongodb://h/"


class DefaultsTests(SynchronousTestCase):
    """What holds when nothing is said."""

    def test_no_option(self) -> None:
        """A client without arguments goes to the local server with the defaults of the specifications."""
        settings = parse_settings()
        self.assertEqual(settings.seeds, (("127.0.0.1", 27017),))
        self.assertEqual(settings, ClientSettings(parsed=settings._parsed))
        self.assertIsNone(settings.tls)
        self.assertIsNone(settings.credentials)
        self.assertIsNone(settings.pool_size)
        self.assertEqual((settings.connect_timeout, settings.server_selection_timeout), (20.0, 30.0))
        self.assertEqual((settings.min_pool_size, settings.max_pool_size, settings.max_connecting), (0, 100, 2))
        self.assertEqual(settings.read_preference, ReadPreference.PRIMARY)

    def test_scheme_is_added(self) -> None:
        """A URI without a scheme is taken for mongodb://."""
        settings = parse_settings("example.com:27018/app?w=2")
        self.assertEqual(settings.seeds, (("example.com", 27018),))
        self.assertEqual(settings.database, "app")
        self.assertEqual(settings.write_concern, WriteConcern(2))


class URITests(SynchronousTestCase):
    """The text of the connection string."""

    def test_hosts(self) -> None:
        """Names, addresses and sockets may stand together; names are lower-cased, the port defaults to 27017."""
        settings = parse_settings("mongodb://A.example,10.0.0.1:1,[::1]:2,[fe80::1%25eth0],%2Ftmp%2FA.sock/db")
        self.assertEqual(
            settings.seeds,
            (("a.example", 27017), ("10.0.0.1", 1), ("::1", 2), ("fe80::1%eth0", 27017), ("/tmp/A.sock", None)),
        )

    def test_collection_is_not_the_database(self) -> None:
        """What stands after the first dot of the path is not part of the database's name."""
        self.assertEqual(parse_settings("mongodb://h/db.coll.x").database, "db")

    def test_not_a_text(self) -> None:
        """A URI that is not a str is a TypeError."""
        wrong: Any = 27017
        self.assertIn("int", str(self.assertRaises(TypeError, parse_settings, wrong)))

    def test_refused(self) -> None:
        """Each of these is no connection string, and the error says what is wrong."""
        for uri, said in (
            ("", "begins with"),
            ("http://h", "begins with"),
            ("mongodb://", "host"),
            ("mongodb://a,,b", "host is empty"),
            ("mongodb://:27017", "host is empty"),
            ("mongodb://a%2Eb", "'%'"),
            ("mongodb://h/?w", "key=value"),
            ("mongodb://h/?w=1&", "key=value"),
            ("mongodb://h/?w=1;j=true&a=b", "either"),
            ("mongodb://h/a$b", "database name"),
            ("mongodb://h/?authSource=", "authSource"),
            ("mongodb://@h", "username"),
            ("mongodb+srv://a,b", "one host"),
            ("mongodb+srv://", "host"),
            ("mongodb+srv://a:27017", "port"),
        ):
            error = self.assertRaises(InvalidURI, parse_settings, uri)
            self.assertIn(said, str(error), uri)

    def test_wrong_port(self) -> None:
        """A port that is no number between 1 and 65535 is a ValueError."""
        for port in ("x", "0", "65536", "-1"):
            self.assertIn("Port", str(self.assertRaises(ValueError, parse_settings, f"mongodb://h:{port}")))

    def test_errors_never_show_a_password(self) -> None:
        """Unescaped characters in a password cut the URI at the wrong place, yet no error shows a part of it."""
        for uri in (
            "mongodb://alice:pa/seCret@h/db",
            "mongodb://alice:se@Cret/pass@h/db",
            "mongodb://alice:sec:Cret@h/db",
            "mongodb://alice:Cret%se@h/db",
            "mongodb://alice:Cret%2",
            "mongodb://alice:Cret,h/db",
        ):
            error = self.assertRaises((ConfigurationError, ValueError), parse_settings, uri)
            self.assertNotIn("Cret", str(error), uri)

    def test_duplicate_option(self) -> None:
        """An option that stands twice is warned of; the last value counts."""
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            settings = parse_settings("mongodb://h/?replicaSet=a&replicaset=b")
        self.assertEqual(settings.replica_set_name, "b")
        self.assertEqual(["duplicate URI option replicaSet: the last value counts"], [str(w.message) for w in seen])

    def test_wrong_option(self) -> None:
        """In a URI an unknown option or a wrong value is warned of, by name, and left out."""
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            settings = parse_settings("mongodb://h/?maxPoolSise=3&connectTimeoutMS=soon&w=1")
        self.assertEqual(settings.write_concern, WriteConcern(1))
        self.assertEqual(settings.connect_timeout, 20.0)
        self.assertEqual(len(seen), 2)
        self.assertIn("unknown option: maxPoolSise; is maxpoolsize", str(seen[0].message))
        self.assertIn("connectTimeoutMS", str(seen[1].message))


class HostTests(SynchronousTestCase):
    """Hosts and their port, as PyMongo's clients take them."""

    def test_port(self) -> None:
        """A port is that of the hosts that are named without one, whatever else the connection string says."""
        for hosts, expected in (
            (
                "mongodb://one,two:2,[::1],[::1]:3,%2Ftmp%2FA.sock",
                "mongodb://one:9,two:2,[::1]:9,[::1]:3,%2Ftmp%2FA.sock",
            ),
            ("mongodb://user:p%40ss@one/db?w=2", "mongodb://user:p%40ss@one:9/db?w=2"),
            ("mongodb://one?w=2", "mongodb://one:9?w=2"),
            ("one", "mongodb://one:9"),
            (["one", "two:2"], "mongodb://one:9,two:2"),
            ("mongodb+srv://one.example", "mongodb+srv://one.example"),
        ):
            self.assertEqual(connection_string(hosts, 9), expected)

    def test_several(self) -> None:
        """Several hosts are those of one connection string, which may be all there is."""
        self.assertEqual(parse_settings(connection_string(("a", "b:2"))).seeds, (("a", 27017), ("b", 2)))
        self.assertEqual(connection_string(["mongodb://a,b/db"]), "mongodb://a,b/db")
        self.assertEqual(connection_string("mongodb://a,b/db"), "mongodb://a,b/db")

    def test_refused(self) -> None:
        """What is wrong is named, and no password."""
        wrong: list[tuple[Any, Any, type[Exception]]] = [
            (["mongodb://user:secret@a", "mongodb://b"], None, ConfigurationError),
            ([], None, ConfigurationError),
            ([1], None, TypeError),
            (1, None, TypeError),
            (b"mongodb://a", None, TypeError),
            ("a", "1", TypeError),
            ("a", True, TypeError),
            ("a", 0, ValueError),
            ("a", 65536, ValueError),
            ("http://a", 1, InvalidURI),
        ]
        for hosts, port, kind in wrong:
            self.assertNotIn("secret", str(self.assertRaises(kind, connection_string, hosts, port)))


class KeywordTests(SynchronousTestCase):
    """Options given as keywords."""

    def test_keywords_win(self) -> None:
        """A keyword wins over the URI, in whatever case it is written."""
        settings = parse_settings("mongodb://h/?maxPoolSize=5&w=1&retryReads=true", MAXPOOLSIZE=7, retryreads=False)
        self.assertEqual(settings.max_pool_size, 7)
        self.assertFalse(settings.retry_reads)
        self.assertEqual(settings.write_concern, WriteConcern(1))

    def test_unknown(self) -> None:
        """An unknown keyword is a ConfigurationError that names it and what may be meant."""
        error = self.assertRaises(ConfigurationError, parse_settings, PLAIN, maxPoolSzie=5)
        self.assertIn("unknown option: maxPoolSzie", str(error))
        self.assertIn("maxpoolsize", str(error))

    def test_wrong_values(self) -> None:
        """A wrong value is an error that names the keyword."""
        for name, value, kind in (
            ("appname", "x" * 129, ValueError),
            ("compressors", 5, TypeError),
            ("connectTimeoutMS", "soon", ValueError),
            ("datetime_conversion", "NEVER", ValueError),
            ("document_class", 5, TypeError),
            ("heartbeatFrequencyMS", 100, ConfigurationError),
            ("maxConnecting", 0, ValueError),
            ("pool_size", 0, ValueError),
            ("pool_size", "2", TypeError),
            ("readPreference", "fastest", ValueError),
            ("server_api", "1", TypeError),
            ("ssl_context_factory", 5, TypeError),
            ("timeoutMS", -1, ValueError),
            ("w", -1, ValueError),
            ("write_concern", {"w": 1}, TypeError),
        ):
            keywords: dict[str, Any] = {name: value}
            error = self.assertRaises(kind, parse_settings, PLAIN, **keywords)
            self.assertIn(name, str(error))

    def test_none_is_the_default(self) -> None:
        """None for a keyword whose default is None in a constructor's signature says nothing."""
        settings = parse_settings(PLAIN, document_class=None, tz_aware=None, ssl_context_factory=None, timeout=None)
        self.assertEqual(settings.codec_options, CodecOptions())
        self.assertIsNone(settings.tls)

    def test_every_keyword_of_pymongo(self) -> None:
        """What PyMongo's clients take as keywords comes out in the settings."""
        listener = CommandListener()
        driver = DriverInfo("wrapper", "1", "p")
        api = ServerApi("1")
        settings = parse_settings(
            PLAIN,
            appname="app",
            compressors="zlib",
            zlibCompressionLevel=4,
            document_class=SON,
            tz_aware=True,
            unicode_decode_error_handler="ignore",
            uuidRepresentation="standard",
            datetime_conversion="DATETIME_AUTO",
            driver=driver,
            event_listeners=[listener],
            heartbeatFrequencyMS=700,
            localThresholdMS=3,
            maxAdaptiveRetries=1,
            enableOverloadRetargeting=True,
            maxIdleTimeMS=5000,
            minPoolSize=2,
            maxPoolSize=None,
            read_preference=Nearest(),
            readConcernLevel="majority",
            serverMonitoringMode="poll",
            serverSelectionTimeoutMS=100,
            server_api=api,
            server_selector=max,
            socketTimeoutMS=4000,
            timeoutMS=0,
            waitQueueTimeoutMS=6000,
            connect=False,
            w="majority",
            wTimeoutMS=9,
            journal=True,
        )
        self.assertEqual(settings.app_name, "app")
        self.assertEqual((settings.compressors, settings.zlib_compression_level), (("zlib",), 4))
        self.assertEqual(
            settings.codec_options,
            CodecOptions(
                SON,
                tz_aware=True,
                uuid_representation=UuidRepresentation.STANDARD,
                unicode_decode_error_handler="ignore",
                datetime_conversion=DatetimeConversion.DATETIME_AUTO,
            ),
        )
        self.assertEqual((settings.driver, settings.server_api), (driver, api))
        self.assertEqual(settings.event_listeners, (listener,))
        self.assertEqual(settings.heartbeat_frequency, 0.7)
        self.assertEqual(settings.local_threshold_ms, 3)
        self.assertEqual((settings.max_adaptive_retries, settings.enable_overload_retargeting), (1, True))
        self.assertEqual((settings.min_pool_size, settings.max_pool_size, settings.max_idle_time), (2, sys.maxsize, 5))
        self.assertEqual(settings.read_preference, Nearest())
        self.assertEqual(settings.read_concern, ReadConcern("majority"))
        self.assertEqual(settings.server_monitoring_mode, "poll")
        self.assertEqual((settings.server_selection_timeout, settings.server_selector), (0.1, max))
        self.assertEqual((settings.socket_timeout, settings.timeout, settings.wait_queue_timeout), (4, 0, 6))
        self.assertEqual(settings.write_concern, WriteConcern("majority", 9, True))

    def test_keywords_of_txmongo(self) -> None:
        """What only TxMongo's constructor takes comes out in the settings."""
        settings = parse_settings(
            PLAIN, pool_size=3, retry_delay=2, max_delay=9, ping_interval=4, ping_timeout=5, w=2, j=True, wtimeout=7
        )
        self.assertEqual(settings.pool_size, 3)
        self.assertEqual((settings.retry_delay, settings.max_delay), (2, 9))
        self.assertEqual((settings.heartbeat_frequency, settings.ping_timeout), (4, 5))
        self.assertEqual(settings.write_concern, WriteConcern(2, 7, True))

    def test_ping_interval(self) -> None:
        """TxMongo's ping_interval is heartbeatFrequencyMS in seconds, half a second at the least."""
        uri = "mongodb://h/?heartbeatFrequencyMS=7000"
        self.assertEqual(parse_settings(uri).heartbeat_frequency, 7)
        self.assertEqual(parse_settings(uri, ping_interval=10).heartbeat_frequency, 10)
        self.assertEqual(parse_settings(PLAIN, ping_interval=0.1).heartbeat_frequency, 0.5)
        both = {"ping_interval": 4, "heartbeatFrequencyMS": 4000}
        error = self.assertRaises(ConfigurationError, parse_settings, PLAIN, **both)
        self.assertIn("ping_interval and heartbeatFrequencyMS", str(error))

    def test_wait_queue_size(self) -> None:
        """How many operations may wait is said in the URI or by a keyword, in either spelling."""
        self.assertEqual(parse_settings(PLAIN).wait_queue_size, 50_000)
        self.assertEqual(parse_settings(PLAIN + "?waitQueueSize=3").wait_queue_size, 3)
        for name in ("waitQueueSize", "wait_queue_size"):
            self.assertEqual(parse_settings(PLAIN, **{name: 4}).wait_queue_size, 4)
        self.assertRaises(ValueError, parse_settings, PLAIN, waitQueueSize=0)

    def test_values_as_objects(self) -> None:
        """codec_options and write_concern may be given whole."""
        options: CodecOptions[Any] = CodecOptions(SON)
        settings = parse_settings("mongodb://h/?w=1", codec_options=options, write_concern=WriteConcern(3))
        self.assertIs(settings.codec_options, options)
        self.assertEqual(settings.write_concern, WriteConcern(3))

    def test_timeout_is_for_connecting(self) -> None:
        """TxMongo 15.2's timeout, in seconds, is the time to connect and the first pause before the next attempt."""
        settings = parse_settings("mongodb://h/?connectTimeoutMS=9000", timeout=1.5)
        self.assertEqual((settings.connect_timeout, settings.retry_delay), (1.5, 1.5))
        self.assertEqual(parse_settings(PLAIN, timeout=2, retry_delay=5).retry_delay, 5)
        error = self.assertRaises(ConfigurationError, parse_settings, PLAIN, timeout=1, connectTimeoutMS=2)
        self.assertIn("timeout", str(error))
        self.assertIn("connectTimeoutMS", str(error))

    def test_no_connect_timeout(self) -> None:
        """connectTimeoutMS=0 means that there is no limit."""
        self.assertIsNone(parse_settings("mongodb://h/?connectTimeoutMS=0").connect_timeout)

    def test_client_side_encryption(self) -> None:
        """What the driver cannot do is refused by name rather than ignored."""
        error = self.assertRaises((ConfigurationError, TypeError), parse_settings, PLAIN, auto_encryption_opts=object())
        self.assertIn("auto_encryption_opts", str(error))


class PoolTests(SynchronousTestCase):
    """Options of the pool."""

    def test_fixed_or_growing(self) -> None:
        """pool_size cannot stand beside minPoolSize or maxPoolSize; the error names both."""
        for name in ("minPoolSize", "maxPoolSize"):
            for uri, keywords in ((PLAIN, {name: 1}), (f"mongodb://h/?{name}=1", {})):
                error = self.assertRaises(ConfigurationError, parse_settings, uri, pool_size=1, **keywords)
                self.assertIn("pool_size", str(error))
                self.assertIn(name, str(error))

    def test_port_for_a_size(self) -> None:
        """A fixed pool is not as large as a port that was given in its place."""
        self.assertEqual(parse_settings(pool_size=10_000).pool_size, 10_000)
        self.assertIn("port=27017", str(self.assertRaises(ValueError, parse_settings, pool_size=27017)))

    def test_pool_options(self) -> None:
        """What concerns connections can be read as PyMongo has it."""
        settings = parse_settings(
            maxPoolSize=9, minPoolSize=2, maxIdleTimeMS=1500, waitQueueTimeoutMS=2500, appname="app", maxConnecting=3
        )
        options = settings.pool_options
        self.assertEqual((options.max_pool_size, options.min_pool_size, options.max_connecting), (9, 2, 3))
        self.assertEqual(
            (options.max_idle_time_seconds, options.wait_queue_timeout, options.appname), (1.5, 2.5, "app")
        )
        self.assertEqual((options.connect_timeout, options.socket_timeout), (20.0, None))
        self.assertFalse(options.tls_allow_invalid_hostnames)
        fixed = parse_settings(pool_size=3, tls=True, tlsAllowInvalidHostnames=True).pool_options
        self.assertEqual((fixed.max_pool_size, fixed.min_pool_size), (3, 3))
        self.assertTrue(fixed.tls_allow_invalid_hostnames)

    def test_minimum_above_maximum(self) -> None:
        """minPoolSize must not be greater than maxPoolSize, unless that is unlimited."""
        for uri in ("mongodb://h/?minPoolSize=2&maxPoolSize=1", "mongodb://h/?minPoolSize=101"):
            self.assertIn("minPoolSize", str(self.assertRaises(ValueError, parse_settings, uri)))
        self.assertEqual(parse_settings("mongodb://h/?minPoolSize=101&maxPoolSize=0").min_pool_size, 101)


class ConcernTests(SynchronousTestCase):
    """Read preference, read concern, write concern."""

    def test_read_preference(self) -> None:
        """Mode, tags and staleness become one read preference."""
        settings = parse_settings(
            "mongodb://h/?readPreference=secondary&readPreferenceTags=dc:ny,rack:1&readPreferenceTags="
            "&maxStalenessSeconds=120"
        )
        self.assertEqual(settings.read_preference, Secondary([{"dc": "ny", "rack": "1"}, {}], 120))
        self.assertEqual(
            parse_settings(PLAIN, readPreference="secondaryPreferred").read_preference, SecondaryPreferred()
        )

    def test_primary_with_tags(self) -> None:
        """Tags or staleness make no sense with the primary."""
        for options in ("readPreferenceTags=a:b", "maxStalenessSeconds=120"):
            self.assertRaises(ConfigurationError, parse_settings, f"mongodb://h/?{options}")

    def test_unacknowledged_and_journaled(self) -> None:
        """w=0 and journal=true contradict each other."""
        self.assertRaises(ConfigurationError, parse_settings, "mongodb://h/?w=0&journal=true")


class TopologyTests(SynchronousTestCase):
    """Options that say what is at the other end."""

    def test_refused(self) -> None:
        """Options that contradict each other are refused, and the error names them."""
        for uri, first, second in (
            ("mongodb://a,b/?directConnection=true", "directConnection", "host"),
            ("mongodb+srv://a.b.c/?directConnection=true", "directConnection", "srv"),
            ("mongodb://a,b/?loadBalanced=true", "loadBalanced", "host"),
            ("mongodb://a/?loadBalanced=true&directConnection=true", "loadBalanced", "directConnection"),
            ("mongodb://a/?loadBalanced=true&replicaSet=r", "loadBalanced", "replicaSet"),
            ("mongodb://a/?srvServiceName=x", "srvServiceName", "srv"),
            ("mongodb://a/?srvMaxHosts=1", "srvMaxHosts", "srv"),
            ("mongodb://a/?srvAllowedHostsSuffix=.x", "srvAllowedHostsSuffix", "srv"),
            ("mongodb+srv://a.b.c/?srvMaxHosts=1&replicaSet=r", "srvMaxHosts", "replicaSet"),
            ("mongodb+srv://a.b.c/?srvMaxHosts=1&loadBalanced=true", "srvMaxHosts", "loadBalanced"),
        ):
            error = self.assertRaises(ConfigurationError, parse_settings, uri)
            self.assertIn(first, str(error))
            self.assertIn(second, str(error))

    def test_validator_and_suffix(self) -> None:
        """The two ways of telling which SRV hosts are allowed exclude each other."""
        error = self.assertRaises(
            ConfigurationError,
            parse_settings,
            "mongodb+srv://a.b.c",
            srv_host_validator=bool,
            srvAllowedHostsSuffix=".x",
        )
        self.assertIn("srv_host_validator", str(error))


class SRVTests(SynchronousTestCase):
    """mongodb+srv, before and after DNS has answered."""

    def test_before(self) -> None:
        """Nothing is looked up; the name is kept, and TLS is on unless it is switched off."""
        settings = parse_settings("mongodb+srv://Cluster.example.com/db?srvServiceName=custom&srvMaxHosts=2")
        self.assertEqual(settings.fqdn, "cluster.example.com")
        self.assertIsNotNone(settings.tls)
        self.assertEqual((settings.srv_service_name, settings.srv_max_hosts), ("custom", 2))
        self.assertIsNone(parse_settings("mongodb+srv://a.b.c/?tls=false").tls)

    def test_after(self) -> None:
        """The hosts that were found and the options of the TXT record are taken in; the name stays."""
        settings = parse_settings("mongodb+srv://u:p@a.b.c/", maxPoolSize=3)
        found = settings.resolved([("x.b.c", 1), ("y.b.c", 2)], "authSource=them&replicaSet=rs")
        self.assertEqual(found.seeds, (("x.b.c", 1), ("y.b.c", 2)))
        self.assertEqual((found.fqdn, found.replica_set_name, found.max_pool_size), ("a.b.c", "rs", 3))
        assert found.credentials is not None
        self.assertEqual(found.credentials.source, "them")
        self.assertIs(found.tls, settings.tls)

    def test_listeners(self) -> None:
        """Listeners are those that were registered for all clients when this one was made, and its own."""
        first, own, late = CommandListener(), CommandListener(), CommandListener()
        for listener in (first, late):
            self.addCleanup(monitoring._LISTENERS.command_listeners.remove, listener)
        monitoring.register(first)
        settings = parse_settings("mongodb+srv://a.b.c/", event_listeners=[own])
        monitoring.register(late)
        self.assertEqual(settings.event_listeners, (first, own))
        self.assertEqual(settings.resolved([("x.b.c", 1)]).event_listeners, (first, own))
        self.assertEqual(parse_settings(PLAIN).event_listeners, (first, late))

    def test_uri_wins_over_the_record(self) -> None:
        """An option of the URI or a keyword wins over the TXT record."""
        settings = parse_settings("mongodb+srv://u:p@a.b.c/?authSource=us", replicaSet="ours")
        found = settings.resolved([("x.b.c", 1)], "authSource=them&replicaSet=theirs")
        assert found.credentials is not None
        self.assertEqual((found.credentials.source, found.replica_set_name), ("us", "ours"))

    def test_forbidden_record(self) -> None:
        """A TXT record may set three options only."""
        settings = parse_settings("mongodb+srv://a.b.c/")
        error = self.assertRaises(ConfigurationError, settings.resolved, [("x.b.c", 1)], "tls=false&w=1")
        self.assertIn("tls, w", str(error))

    def test_record_that_contradicts(self) -> None:
        """What DNS says is held to the same rules."""
        settings = parse_settings("mongodb+srv://a.b.c/?srvMaxHosts=1")
        self.assertRaises(ConfigurationError, settings.resolved, [("x.b.c", 1)], "replicaSet=rs")
        settings = parse_settings("mongodb+srv://a.b.c/?loadBalanced=true")
        self.assertRaises(ConfigurationError, settings.resolved, [("x.b.c", 1), ("y.b.c", 1)])


class CredentialTests(SynchronousTestCase):
    """Who the client is."""

    def credential(self, uri: str, **keywords: Any) -> tuple[Any, ...] | None:
        """Mechanism, source, name and password."""
        credential = parse_settings(uri, **keywords).credentials
        return None if credential is None else tuple(credential[:4])

    def test_source(self) -> None:
        """The user is of the authSource, else of the database in the URI, else of admin."""
        self.assertEqual(self.credential("mongodb://u:p@h"), ("DEFAULT", "admin", "u", "p"))
        self.assertEqual(self.credential("mongodb://u:p@h/app"), ("DEFAULT", "app", "u", "p"))
        self.assertEqual(self.credential("mongodb://u:p@h/app?authSource=x"), ("DEFAULT", "x", "u", "p"))
        self.assertIsNone(self.credential("mongodb://h/app?authSource=x"))

    def test_unescaped(self) -> None:
        """Name and password are percent-decoded."""
        self.assertEqual(self.credential("mongodb://a%40b:p%3A%2F%40@h"), ("DEFAULT", "admin", "a@b", "p:/@"))

    def test_keywords(self) -> None:
        """username and password may be keywords, and win over the URI."""
        self.assertEqual(
            self.credential("mongodb://u:p@h", username="v", password="q", authMechanism="SCRAM-SHA-1"),
            ("SCRAM-SHA-1", "admin", "v", "q"),
        )

    def test_external(self) -> None:
        """MONGODB-X509 and PLAIN are of $external; the first needs no name and takes no password."""
        x509 = ("MONGODB-X509", "$external", None, None)
        self.assertEqual(self.credential("mongodb://h/db?authMechanism=MONGODB-X509"), x509)
        self.assertEqual(self.credential("mongodb://u:p@h/?authMechanism=PLAIN"), ("PLAIN", "$external", "u", "p"))

    def test_refused(self) -> None:
        """Credentials that cannot be meant are refused when the client is made."""
        for uri in (
            "mongodb://u@h",
            "mongodb://u:@h/?authMechanism=SCRAM-SHA-256",
            "mongodb://h/?authMechanism=SCRAM-SHA-1",
            "mongodb://u:p@h/?authMechanism=MONGODB-X509",
            "mongodb://u@h/?authMechanism=MONGODB-X509&authSource=admin",
        ):
            error = self.assertRaises((ConfigurationError, ValueError), parse_settings, uri)
            self.assertNotIn("mongodb://", str(error))

    def test_repr_has_no_secret(self) -> None:
        """Neither the URI nor a password can be read in the settings' repr."""
        shown = repr(
            parse_settings("mongodb://alice:secret@h/", tlsCertificateKeyFilePassword="secret2", server_api=None)
        )
        self.assertNotIn("secret", shown)
        self.assertNotIn("alice", shown)


class TLSTests(SynchronousTestCase):
    """Whether connections are encrypted; the files themselves are tested in test_tls."""

    def test_on_and_off(self) -> None:
        """tls and ssl are two names of one switch."""
        for query, expected in (
            ("", False),
            ("?tls=true", True),
            ("?ssl=true", True),
            ("?tls=false", False),
            ("?ssl=true&tls=true", True),
        ):
            self.assertEqual(parse_settings(PLAIN + query).tls is not None, expected, query)
        self.assertIsNotNone(parse_settings("mongodb://h/?ssl=false", tls=True).tls)

    def test_never_plain_by_mistake(self) -> None:
        """A value of tls that is not understood is refused: a mere warning would mean plain text."""
        for query in ("tls=yes", "ssl=True", "tls="):
            self.assertIn("plain text", str(self.assertRaises(InvalidURI, parse_settings, f"mongodb://h/?{query}")))

    def test_implied(self) -> None:
        """An option that says how the server is checked implies TLS."""
        for query in ("tlsAllowInvalidHostnames=false", "tlsInsecure=false", "tlsCertificateKeyFilePassword=x"):
            self.assertIsNotNone(parse_settings(f"mongodb://h/?{query}").tls, query)
        self.assertIsNone(parse_settings("mongodb://h/?tlsInsecure=true").tls)

    def test_lenience(self) -> None:
        """tlsInsecure stands for both lenient options."""
        for query, certificates, names in (
            ("tls=true", False, False),
            ("tls=true&tlsInsecure=true", True, True),
            ("tls=true&tlsAllowInvalidCertificates=true", True, False),
            ("tls=true&tlsAllowInvalidHostnames=true", False, True),
        ):
            tls = parse_settings(f"mongodb://h/?{query}").tls
            assert tls is not None
            self.assertEqual((tls.allow_invalid_certificates, tls.allow_invalid_hostnames), (certificates, names))

    def test_exclusive(self) -> None:
        """Options that exclude each other are refused in the URI, as keywords, and one in each."""
        uri_and_keywords: tuple[tuple[str, dict[str, Any]], ...] = (
            ("?tlsInsecure=true&tlsAllowInvalidHostnames=true", {}),
            ("", {"tlsInsecure": True, "tlsAllowInvalidHostnames": True}),
            ("?tlsInsecure=true", {"tlsAllowInvalidHostnames": True}),
        )
        for query, keywords in uri_and_keywords:
            error = self.assertRaises(InvalidURI, parse_settings, PLAIN + query, **keywords)
            self.assertIn("tlsInsecure and tlsAllowInvalidHostnames", str(error))

    def test_contradiction(self) -> None:
        """tls=false beside an option that needs TLS, or tls and ssl of two minds, is refused."""
        self.assertIn(
            "tlsCertificateKeyFilePassword",
            str(
                self.assertRaises(
                    ConfigurationError, parse_settings, "mongodb://h/?tls=false&tlsCertificateKeyFilePassword=x"
                )
            ),
        )
        for query in ("tls=true&ssl=false", "tls=true&tls=false"):
            self.assertIn("contradict", str(self.assertRaises(InvalidURI, parse_settings, f"mongodb://h/?{query}")))

    def test_context_factory(self) -> None:
        """A context factory turns TLS on and decides alone; options that would be ignored are refused."""
        factory = ClientContextFactory()
        tls = parse_settings("mongodb://h/?tls=true", ssl_context_factory=factory).tls
        assert tls is not None
        self.assertIs(tls.context_factory, factory)
        self.assertIs(factory.method, SSL.TLS_METHOD)
        for query in ("tls=false", "tlsInsecure=true", "tlsCAFile=/x"):
            error = self.assertRaises(
                ConfigurationError, parse_settings, f"mongodb://h/?{query}", ssl_context_factory=factory
            )
            self.assertIn("ssl_context_factory", str(error))

    def test_socket(self) -> None:
        """TLS over a UNIX socket is refused: nobody's name could be verified."""
        error = self.assertRaises(ConfigurationError, parse_settings, "mongodb://%2Ftmp%2Fx.sock/?tls=true")
        self.assertIn("/tmp/x.sock", str(error))
