"""Everything a client was told, as one frozen value.

Lives here: what the options of the URI and the keywords mean together (which wins, what they imply, what they exclude),
and the :class:`ClientSettings` that every layer below is given. How the text is taken apart and each value checked is
:mod:`txmongo._options`. Nothing here waits or looks up a name: ``mongodb+srv`` leaves :attr:`ClientSettings.fqdn` to be
resolved, after which :meth:`ClientSettings.resolved` gives the settings with what DNS said.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs
from bson.codec_options import CodecOptions
from pymongo import common
from pymongo.driver_info import DriverInfo
from pymongo.errors import ConfigurationError
from pymongo.pool_options import PoolOptions
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import make_read_preference, read_pref_mode_from_name
from pymongo.server_api import ServerApi
from pymongo.write_concern import WriteConcern

from txmongo import _options
from txmongo._credentials import client_credentials
from txmongo._logs import LogSettings, log_settings
from txmongo._pymongo import MongoCredential, ServerMode, parse_codec_options, registered_listeners
from txmongo._tls import TLSSettings, read_client_certificate, read_revocation_lists, read_trusted
from txmongo.types import Address

__all__ = ["DEFAULT_URI", "ClientSettings", "TLSSettings", "parse_settings"]

DEFAULT_URI = "mongodb://127.0.0.1:27017"
DEFAULT_MAX_POOL_SIZE = 100
DEFAULT_WAIT_QUEUE_SIZE = 50_000

#: Options that only make sense with TLS: any value of the first, a false one of the second, turns TLS on.
_TLS_MATERIAL = {
    "tlscafile": "tlsCAFile",
    "tlscertificatekeyfile": "tlsCertificateKeyFile",
    "tlscertificatekeyfilepassword": "tlsCertificateKeyFilePassword",
    "tlscrlfile": "tlsCRLFile",
}
_TLS_LENIENCE = {
    "tlsallowinvalidcertificates": "tlsAllowInvalidCertificates",
    "tlsallowinvalidhostnames": "tlsAllowInvalidHostnames",
    "tlsdisableocspendpointcheck": "tlsDisableOCSPEndpointCheck",
    "tlsinsecure": "tlsInsecure",
}

#: What a TXT record beside an SRV record may set: Initial DNS Seedlist Discovery specification.
_TXT_OPTIONS = frozenset({"authsource", "loadbalanced", "replicaset"})


@attrs.frozen(kw_only=True)
class ClientSettings:
    """What a client was told by its URI and keywords; times are seconds unless a name ends in ``_ms``.

    :ivar uri: the connection string as it was given, password and all.
    :ivar seeds: the servers to start from; with :attr:`fqdn` that name alone, until :meth:`resolved`.
    :ivar fqdn: the name after ``mongodb+srv://``.
    :ivar database: the default database, ``None`` if the URI names none.
    :ivar credentials: who the client is, ``None`` for nobody.
    :ivar max_pool_size: ``sys.maxsize`` where there is no limit.
    :ivar pool_size: connections of a fixed pool; ``None`` for a growing one.
    :ivar connect_timeout: for the whole establishment of a connection; ``None`` for no limit.
    :ivar timeout: ``timeoutMS``; ``None`` if it was not given, 0 for "no limit", which is not the same.
    :ivar retry_delay: first pause between attempts to connect, and :attr:`max_delay` its greatest (TxMongo's keywords).
    :ivar ping_timeout: how long a monitor waits for an answer (TxMongo's keyword); ``None`` for the time to connect.
    :ivar logs: what is written to the log; the environment is read for it when the client is made.
    :ivar options: checked values of all options that were given, under lower-case names.
    """

    uri: str = attrs.field(default=DEFAULT_URI, repr=False)
    seeds: tuple[Address, ...] = (("127.0.0.1", 27017),)
    fqdn: str | None = None
    database: str | None = None
    credentials: MongoCredential | None = attrs.field(default=None, repr=False)

    codec_options: CodecOptions[Any] = attrs.field(factory=CodecOptions, repr=False)
    read_preference: ServerMode = attrs.field(factory=lambda: make_read_preference(0, None))
    read_concern: ReadConcern = attrs.field(factory=ReadConcern)
    write_concern: WriteConcern = attrs.field(factory=WriteConcern)
    retry_reads: bool = True
    retry_writes: bool = True
    max_adaptive_retries: int = 2
    enable_overload_retargeting: bool = False
    timeout: float | None = None

    replica_set_name: str | None = None
    direct_connection: bool = False
    load_balanced: bool = False
    server_selection_timeout: float = 30.0
    local_threshold_ms: float = 15
    heartbeat_frequency: float = 10.0
    min_heartbeat_interval: float = 0.5
    server_monitoring_mode: str = "auto"
    server_selector: Callable[..., Any] | None = None
    srv_service_name: str = "mongodb"
    srv_max_hosts: int = 0
    srv_allowed_hosts_suffix: str | None = None
    srv_host_validator: Callable[..., Any] | None = None

    connect_timeout: float | None = 20.0
    socket_timeout: float | None = None
    tls: TLSSettings | None = None
    compressors: tuple[str, ...] = ()
    zlib_compression_level: int = -1
    app_name: str | None = None
    driver: DriverInfo | None = None
    server_api: ServerApi | None = None

    min_pool_size: int = 0
    max_pool_size: int = DEFAULT_MAX_POOL_SIZE
    max_connecting: int = 2
    max_idle_time: float | None = None
    wait_queue_timeout: float | None = None
    wait_queue_size: int = DEFAULT_WAIT_QUEUE_SIZE
    pool_size: int | None = None
    pipelining: bool = True

    retry_delay: float = 1.0
    max_delay: float = 60.0
    ping_timeout: float | None = None

    auto_encryption_opts: Any = attrs.field(default=None, repr=False)
    event_listeners: tuple[Any, ...] = attrs.field(default=(), repr=False)
    logs: LogSettings = attrs.field(factory=LogSettings)
    options: Mapping[str, Any] = attrs.field(factory=dict, repr=False)
    _parsed: _options.ParsedURI | None = attrs.field(default=None, repr=False, alias="parsed")

    @property
    def collection(self) -> str | None:
        """What stands behind the database's name and a dot in the connection string."""
        return None if self._parsed is None else self._parsed.collection

    @property
    def pool_options(self) -> PoolOptions:
        """What concerns connections, as PyMongo's ``ClientOptions`` have it."""
        fixed = self.pool_size
        return PoolOptions(
            max_pool_size=self.max_pool_size if fixed is None else fixed,
            min_pool_size=self.min_pool_size if fixed is None else fixed,
            max_idle_time_seconds=self.max_idle_time,  # type: ignore[arg-type]  # a float, as PyMongo's own
            connect_timeout=self.connect_timeout,
            socket_timeout=self.socket_timeout,
            wait_queue_timeout=self.wait_queue_timeout,  # type: ignore[arg-type]
            tls_allow_invalid_hostnames=self.tls is not None and self.tls.allow_invalid_hostnames,
            appname=self.app_name,
            driver=self.driver,
            max_connecting=self.max_connecting,
            server_api=self.server_api,
            load_balanced=self.load_balanced,
            is_sync=False,
        )

    def resolved(self, seeds: Iterable[Address], txt: str | None = None) -> ClientSettings:
        """The settings of a ``mongodb+srv`` client once DNS has answered.

        :param seeds: the hosts of the SRV records.
        :param txt: text of the TXT record, if there was one; the URI and the keywords win over it.
        :raises ConfigurationError: the record sets what it may not, or contradicts the other options.
        """
        assert self._parsed is not None
        record = _options.validate_options(_options.parse_query(txt)) if txt else {}
        forbidden = sorted(set(record) - _TXT_OPTIONS)
        if forbidden:
            raise ConfigurationError(
                f"the TXT record of {self.fqdn} may set authSource, replicaSet and loadBalanced only, not "
                f"{', '.join(forbidden)}"
            )
        settings = _settings(self.uri, self._parsed, tuple(seeds), {**record, **self.options}, self.tls)
        return attrs.evolve(
            settings,
            min_heartbeat_interval=self.min_heartbeat_interval,
            logs=self.logs,
            event_listeners=self.event_listeners,
        )


def parse_settings(uri: str = DEFAULT_URI, **keywords: Any) -> ClientSettings:
    """Make the settings of a client.

    :param uri: a connection string; without a scheme it is taken for ``mongodb://``.
    :param keywords: every option of the URI and every keyword of PyMongo's clients, in PyMongo's spelling (the case
        does not matter), and those of TxMongo. They win over the URI.
    :raises ConfigurationError: an option is not known, not supported, or contradicts another; a TLS file cannot be
        used. :class:`~txmongo.errors.InvalidURI`, for a wrong connection string, is one of these.
    :raises TypeError: a keyword has a value of the wrong type.
    :raises ValueError: a keyword has a value that is not allowed.
    """
    parsed = _options.parse_uri(uri)
    checked = _options.validate_keywords(keywords)
    both = {**parsed.options, **_without_ping_interval(_without_timeout(checked))}
    _options.refuse_conflicts(both)
    return attrs.evolve(_settings(uri, parsed, parsed.seeds, both), logs=log_settings(both))


def _without_timeout(keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Put TxMongo's ``timeout`` keyword, the seconds to connect and to the first retry, into today's options."""
    others = dict(keywords)
    seconds = others.pop("timeout", None)
    if seconds is None:
        return others
    if "connecttimeoutms" in others:
        raise ConfigurationError("timeout (seconds to connect) and connectTimeoutMS cannot be given together")
    return {"retry_delay": seconds, **others, "connecttimeoutms": seconds}


def _without_ping_interval(keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Put TxMongo's ``ping_interval``, the seconds between two looks at a server, into today's options."""
    others = dict(keywords)
    seconds = others.pop("ping_interval", None)
    if seconds is None:
        return others
    if others.get("heartbeatfrequencyms") is not None:
        raise ConfigurationError("ping_interval and heartbeatFrequencyMS cannot be given together")
    return {**others, "heartbeatfrequencyms": max(seconds, common.MIN_HEARTBEAT_INTERVAL)}


def _settings(
    uri: str,
    parsed: _options.ParsedURI,
    seeds: tuple[Address, ...],
    options: Mapping[str, Any],
    tls: TLSSettings | None = None,
) -> ClientSettings:
    """Settings from checked options; `tls` is what an earlier call read from the files."""
    _refuse_unsupported(options)
    _check_topology(parsed, seeds, options)
    _check_srv(parsed, options)
    _check_pool(options)
    if tls is None:
        tls = _tls(options, parsed.is_srv)
    if tls is not None:
        _refuse_sockets(seeds)
    return ClientSettings(
        uri=uri,
        parsed=parsed,
        options=options,
        seeds=seeds,
        fqdn=parsed.seeds[0][0] if parsed.is_srv else None,
        database=parsed.database,
        credentials=_credentials(parsed, options),
        codec_options=options.get("codec_options") or parse_codec_options(options),
        read_preference=_read_preference(options),
        read_concern=ReadConcern(options.get("readconcernlevel")),
        write_concern=_write_concern(options),
        tls=tls,
        event_listeners=(*registered_listeners(), *(options.get("event_listeners") or ())),
        **_plain(options),
    )


#: Field, option, and how the option's value is read where it is not taken as it is.
_PLAIN: tuple[tuple[str, str, Callable[[Any], Any] | None], ...] = (
    ("app_name", "appname", None),
    ("auto_encryption_opts", "auto_encryption_opts", None),
    ("compressors", "compressors", lambda names: tuple(dict.fromkeys(names))),
    ("connect_timeout", "connecttimeoutms", None),
    ("direct_connection", "directconnection", bool),
    ("driver", "driver", None),
    ("enable_overload_retargeting", "enableoverloadretargeting", None),
    ("heartbeat_frequency", "heartbeatfrequencyms", lambda seconds: 10.0 if seconds is None else seconds),
    ("load_balanced", "loadbalanced", bool),
    ("local_threshold_ms", "localthresholdms", None),
    ("max_adaptive_retries", "maxadaptiveretries", None),
    ("max_connecting", "maxconnecting", None),
    ("max_delay", "max_delay", None),
    ("max_idle_time", "maxidletimems", None),
    ("max_pool_size", "maxpoolsize", lambda size: size or sys.maxsize),
    ("min_pool_size", "minpoolsize", None),
    ("ping_timeout", "ping_timeout", None),
    ("pipelining", "pipelining", None),
    ("pool_size", "pool_size", None),
    ("replica_set_name", "replicaset", None),
    ("retry_delay", "retry_delay", None),
    ("retry_reads", "retryreads", None),
    ("retry_writes", "retrywrites", None),
    ("server_api", "server_api", None),
    ("server_monitoring_mode", "servermonitoringmode", None),
    ("server_selection_timeout", "serverselectiontimeoutms", None),
    ("server_selector", "server_selector", None),
    ("socket_timeout", "sockettimeoutms", None),
    ("srv_allowed_hosts_suffix", "srvallowedhostssuffix", None),
    ("srv_host_validator", "srv_host_validator", None),
    ("srv_max_hosts", "srvmaxhosts", None),
    ("srv_service_name", "srvservicename", None),
    ("timeout", "timeoutms", None),
    ("wait_queue_size", "waitqueuesize", None),
    ("wait_queue_timeout", "waitqueuetimeoutms", None),
    ("zlib_compression_level", "zlibcompressionlevel", None),
)


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that are one option each; what was not given keeps the field's default."""
    return {
        field: options[option] if read is None else read(options[option])
        for field, option, read in _PLAIN
        if option in options
    }


def _credentials(parsed: _options.ParsedURI, options: Mapping[str, Any]) -> MongoCredential | None:
    username = options.get("username", parsed.username)
    password = options.get("password", parsed.password)
    mechanism = options.get("authmechanism", "DEFAULT" if username else None)
    if not mechanism:
        return None
    return client_credentials(
        mechanism,
        username=username,
        password=password,
        source=options.get("authsource"),
        database=parsed.database,
        options=options,
    )


def _read_preference(options: Mapping[str, Any]) -> ServerMode:
    if "read_preference" in options:
        preference: ServerMode = options["read_preference"]
        return preference
    mode = read_pref_mode_from_name(options.get("readpreference", "primary"))
    return make_read_preference(mode, options.get("readpreferencetags"), options.get("maxstalenessseconds", -1))


def _write_concern(options: Mapping[str, Any]) -> WriteConcern:
    if "write_concern" in options:
        concern: WriteConcern = options["write_concern"]
        return concern
    return WriteConcern(options.get("w"), options.get("wtimeoutms"), options.get("journal"), options.get("fsync"))


def _refuse_unsupported(options: Mapping[str, Any]) -> None:
    frequency = options.get("heartbeatfrequencyms")
    if frequency is not None and frequency < common.MIN_HEARTBEAT_INTERVAL:
        raise ConfigurationError(
            f"heartbeatFrequencyMS must be at least {common.MIN_HEARTBEAT_INTERVAL * 1000:.0f}, not "
            f"{frequency * 1000:.0f}"
        )


def _check_topology(parsed: _options.ParsedURI, seeds: tuple[Address, ...], options: Mapping[str, Any]) -> None:
    """Load Balancer specification, "URI Validation"; URI Options specification on directConnection."""
    direct = options.get("directconnection")
    if direct and parsed.is_srv:
        raise ConfigurationError("directConnection=true cannot be given with a mongodb+srv:// URI")
    if direct and len(seeds) > 1:
        raise ConfigurationError("directConnection=true cannot be given with more than one host")
    if not options.get("loadbalanced"):
        return
    if len(seeds) > 1:
        raise ConfigurationError("loadBalanced=true cannot be given with more than one host")
    if direct:
        raise ConfigurationError("loadBalanced=true and directConnection=true cannot be given together")
    if options.get("replicaset"):
        raise ConfigurationError("loadBalanced=true and replicaSet cannot be given together")


def _check_srv(parsed: _options.ParsedURI, options: Mapping[str, Any]) -> None:
    """Initial DNS Seedlist Discovery specification, "URI Validation"."""
    if not parsed.is_srv:
        for option, name in (
            ("srvservicename", "srvServiceName"),
            ("srvallowedhostssuffix", "srvAllowedHostsSuffix"),
            ("srv_host_validator", "srv_host_validator"),
        ):
            if options.get(option) is not None:
                raise ConfigurationError(f"{name} can be given with a mongodb+srv:// URI only")
    if options.get("srv_host_validator") is not None and options.get("srvallowedhostssuffix") is not None:
        raise ConfigurationError("srv_host_validator and srvAllowedHostsSuffix cannot be given together")
    if not options.get("srvmaxhosts"):
        return
    if not parsed.is_srv:
        raise ConfigurationError("srvMaxHosts can be given with a mongodb+srv:// URI only")
    if options.get("replicaset"):
        raise ConfigurationError("srvMaxHosts and replicaSet cannot be given together")
    if options.get("loadbalanced"):
        raise ConfigurationError("srvMaxHosts and loadBalanced=true cannot be given together")


def _check_pool(options: Mapping[str, Any]) -> None:
    if options.get("pool_size") is not None:
        for option, name in (("minpoolsize", "minPoolSize"), ("maxpoolsize", "maxPoolSize")):
            if option in options:
                raise ConfigurationError(
                    f"pool_size (a fixed pool) and {name} (a growing one) cannot be given together"
                )
    greatest = options.get("maxpoolsize", DEFAULT_MAX_POOL_SIZE)
    if greatest and options.get("minpoolsize", 0) > greatest:
        raise ValueError("minPoolSize must not be greater than maxPoolSize")


def _tls(options: Mapping[str, Any], is_srv: bool) -> TLSSettings | None:
    """Whether to encrypt, and how; the files are read now."""
    factory = options.get("ssl_context_factory")
    asking = [name for option, name in _TLS_MATERIAL.items() if options.get(option)]
    asking += [name for option, name in _TLS_LENIENCE.items() if options.get(option) is False]
    wanted = options.get("tls")
    if wanted is False and factory is not None:
        raise ConfigurationError("ssl_context_factory and tls=false contradict each other")
    if wanted is False and asking:
        raise ConfigurationError(f"tls=false and {', '.join(asking)} contradict each other")
    if factory is not None:
        also = asking + [name for option, name in _TLS_LENIENCE.items() if options.get(option)]
        if also:
            raise ConfigurationError(
                f"{', '.join(also)} cannot be given with ssl_context_factory, which decides that itself"
            )
        return TLSSettings(context_factory=factory)
    if wanted is None:
        wanted = is_srv or bool(asking)
    return _tls_settings(options) if wanted else None


def _tls_settings(options: Mapping[str, Any]) -> TLSSettings:
    insecure = options.get("tlsinsecure", False)
    any_certificate = options.get("tlsallowinvalidcertificates", insecure)
    trusted, own, revoked = (options.get(name) for name in ("tlscafile", "tlscertificatekeyfile", "tlscrlfile"))
    password = options.get("tlscertificatekeyfilepassword")
    if revoked and (any_certificate or options.get("tlsdisablecertificaterevocationcheck")):
        raise ConfigurationError("tlsCRLFile cannot be given when certificates, or their revocation, are not checked")
    return TLSSettings(
        trusted=read_trusted("tlsCAFile", trusted) if trusted else None,
        client_certificate=read_client_certificate("tlsCertificateKeyFile", own, password) if own else None,
        revocation_lists=read_revocation_lists("tlsCRLFile", revoked) if revoked else (),
        allow_invalid_certificates=any_certificate,
        allow_invalid_hostnames=options.get("tlsallowinvalidhostnames", insecure),
    )


def _refuse_sockets(seeds: Iterable[Address]) -> None:
    for host, port in seeds:
        if port is None and host.endswith(".sock"):
            raise ConfigurationError(f"TLS cannot be used with the UNIX socket {host}: give its seed without TLS")
