"""A connection string taken apart, and every option checked: names, values, and which excludes which.

Lives here: the text of the URI and the tables of options. What the options mean together is :mod:`txmongo._settings`.
The values are checked by PyMongo's own validators, so that both drivers know, warn of and refuse the same things;
options that PyMongo's oldest allowed version does not know are added. Nothing here looks up a name in DNS.

Kept: the Connection String and URI Options specifications.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any
from urllib.parse import unquote_plus

import attrs
from bson.codec_options import CodecOptions
from pymongo import common
from pymongo.errors import ConfigurationError, InvalidURI
from pymongo.uri_parser import parse_host, parse_userinfo
from pymongo.write_concern import WriteConcern

from txmongo._logs import validate_length, validate_levels
from txmongo.types import Address

__all__ = [
    "ParsedURI",
    "connection_string",
    "parse_query",
    "parse_uri",
    "refuse_conflicts",
    "validate_keywords",
    "validate_options",
]

SCHEME = "mongodb://"
SRV_SCHEME = "mongodb+srv://"
DEFAULT_PORT = 27017

#: Of a fixed pool, which opens them at once. MongoDB's port, the second argument of PyMongo's clients, is beyond it.
_MOST_CONNECTIONS = 10_000

_BAD_IN_DATABASE_NAMES = re.compile(r'[/ "$]')

Validator = Callable[[Any, Any], Any]


def _seconds_or_none(option: str, value: Any) -> float | None:
    return None if value is None else float(common.validate_positive_float(option, value))


def _not_negative_seconds(option: str, value: Any) -> float:
    return float(common.validate_positive_float_or_zero(option, value))


def _pool_size(option: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{option} must be an integer, not {type(value)}")
    if value > _MOST_CONNECTIONS:
        raise ValueError(f"{option}={value} is more connections than {_MOST_CONNECTIONS:,}; is port={value} meant?")
    return common.validate_positive_integer(option, value)


def _instance(expected: type) -> Validator:
    def validate(option: str, value: Any) -> Any:
        if value is not None and not isinstance(value, expected):
            raise TypeError(f"{option} must be an instance of {expected.__name__}, not {type(value)}")
        return value

    return validate


def _context_factory(option: str, value: Any) -> Any:
    if value is not None and not (hasattr(value, "clientConnectionForTLS") or hasattr(value, "getContext")):
        raise TypeError(
            f"{option} must be a Twisted context factory: an object with clientConnectionForTLS() or getContext(), "
            f"not {type(value)}"
        )
    return value


#: Options of the specifications that not every allowed PyMongo knows, and waitQueueSize, the driver's own. Those on
#: revocation and on single-threaded drivers are known so that no warning is given; they change nothing: the driver
#: never asks for revocation over the network, and server selection always waits.
_URI_OPTIONS: dict[str, Validator] = {
    "enableoverloadretargeting": common.validate_boolean_or_string,
    "maxadaptiveretries": common.validate_non_negative_integer,
    "serverselectiontryonce": common.validate_boolean_or_string,
    "srvallowedhostssuffix": common.validate_string,
    "tlsdisablecertificaterevocationcheck": common.validate_boolean_or_string,
    "waitqueuesize": common.validate_positive_integer,
}

#: Files are read by :mod:`txmongo._settings`, with an error that names the option.
_FILE_OPTIONS: dict[str, Validator] = dict.fromkeys(
    ("tlscafile", "tlscertificatekeyfile", "tlscrlfile"), common.validate_string_or_none
)

_URI_VALIDATORS: dict[str, Validator] = {**_URI_OPTIONS, **common.URI_OPTIONS_VALIDATOR_MAP, **_FILE_OPTIONS}

#: What only a keyword can give, beyond PyMongo's.
_KEYWORD_OPTIONS: dict[str, Validator] = {
    "codec_options": _instance(CodecOptions),
    "enable_overload_retargeting": common.validate_boolean_or_string,
    "log_levels": validate_levels,
    "log_max_document_length": validate_length,
    "max_adaptive_retries": common.validate_non_negative_integer,
    "max_delay": _not_negative_seconds,
    "ping_interval": _not_negative_seconds,
    "ping_timeout": _not_negative_seconds,
    "pipelining": common.validate_boolean_or_string,
    "pool_size": _pool_size,
    "retry_delay": _not_negative_seconds,
    "srv_host_validator": common.validate_is_callable_or_none,
    "ssl_context_factory": _context_factory,
    "timeout": _seconds_or_none,
    "write_concern": _instance(WriteConcern),
}

_KEYWORD_VALIDATORS: dict[str, Validator] = {**common.VALIDATORS, **_URI_VALIDATORS, **_KEYWORD_OPTIONS}

#: Second names: of the specification (ssl), of PyMongo's keywords, and of TxMongo's write concern keywords.
_ALIASES = {
    "enable_overload_retargeting": "enableoverloadretargeting",
    "j": "journal",
    "max_adaptive_retries": "maxadaptiveretries",
    "ssl": "tls",
    "wait_queue_size": "waitqueuesize",
    "wtimeout": "wtimeoutms",
}

#: Keywords that stand for their default when they are None.
_NONE_IS_DEFAULT = frozenset(
    {"codec_options", "connect", "document_class", "log_levels", "log_max_document_length", "pool_size"}
    | {"ssl_context_factory", "timeout", "type_registry", "tz_aware", "write_concern"}
)

#: Pairs of which a URI may have one only, whatever the values: URI Options specification, "Conflicting TLS options".
_EXCLUSIVE = (
    ("tlsInsecure", "tlsAllowInvalidCertificates"),
    ("tlsInsecure", "tlsAllowInvalidHostnames"),
    ("tlsInsecure", "tlsDisableOCSPEndpointCheck"),
    ("tlsInsecure", "tlsDisableCertificateRevocationCheck"),
    ("tlsAllowInvalidCertificates", "tlsDisableOCSPEndpointCheck"),
    ("tlsAllowInvalidCertificates", "tlsDisableCertificateRevocationCheck"),
    ("tlsDisableOCSPEndpointCheck", "tlsDisableCertificateRevocationCheck"),
)


@attrs.frozen(kw_only=True)
class ParsedURI:
    """The parts of a connection string.

    :ivar seeds: the hosts it names; for ``mongodb+srv`` the one name that is looked up, with no port.
    :ivar is_srv: whether the seeds are yet to be looked up in DNS.
    :ivar username: decoded, ``None`` if there is none.
    :ivar password: decoded, ``None`` if there is none.
    :ivar database: the part before the first dot of what stands after the slash.
    :ivar collection: the part after that dot.
    :ivar options: checked values under lower-case names; second names are replaced by the first.
    """

    seeds: tuple[Address, ...]
    is_srv: bool = False
    username: str | None = attrs.field(default=None, repr=False)
    password: str | None = attrs.field(default=None, repr=False)
    database: str | None = None
    collection: str | None = None
    options: Mapping[str, Any] = attrs.field(factory=dict, repr=False)


def connection_string(hosts: str | Iterable[str], port: int | None = None) -> str:
    """One connection string of what PyMongo's clients take for a host and its port.

    :param hosts: a connection string; or a host, perhaps with ``:port``; or several of these.
    :param port: of the hosts that have none. What DNS says of a ``mongodb+srv`` stays as it is.
    :raises TypeError: one of them is not of its type.
    :raises ValueError: there is no such port.
    :raises ConfigurationError: there is no host, or a connection string stands beside another.
    """
    if port is not None:
        if isinstance(port, bool) or not isinstance(port, int):
            raise TypeError(f"port must be an int, not {type(port).__name__}")
        if not 0 < port < 65536:
            raise ValueError(f"port must be between 1 and 65535, not {port}")
    if not isinstance(hosts, str):
        hosts = _joined(hosts)
    if port is None:
        return hosts
    scheme, rest = _split_scheme(hosts)
    if scheme == SRV_SCHEME:
        return hosts
    authority = re.split("[/?]", rest, maxsplit=1)[0]
    userinfo, at, names = authority.rpartition("@")
    named = ",".join(_with_port(name, port) for name in names.split(","))
    return f"{scheme}{userinfo}{at}{named}{rest[len(authority) :]}"


def _joined(hosts: Iterable[str]) -> str:
    """Several hosts in one text."""
    if isinstance(hosts, (bytes, bytearray)) or not isinstance(hosts, Iterable):
        raise TypeError(f"the MongoDB URI must be a str or a list of hosts, not {type(hosts)}")
    several = list(hosts)
    for host in several:
        if not isinstance(host, str):
            raise TypeError(f"a host must be a str, not {type(host)}")
    if not several:
        raise ConfigurationError("there must be at least one host")
    if len(several) > 1 and any("://" in host for host in several):
        raise ConfigurationError(
            "of several hosts none can be a connection string; one of these can name several hosts"
        )
    return ",".join(several)


def _with_port(host: str, port: int) -> str:
    has_port = "]:" in host if host.startswith("[") else ":" in host
    return host if not host or has_port or host.endswith(".sock") else f"{host}:{port}"


def parse_uri(uri: str) -> ParsedURI:
    """Take a connection string apart; invalid options are warned of and left out, as the specification says.

    :param uri: ``mongodb://`` or ``mongodb+srv://``; without a scheme it is taken for ``mongodb://``.
    :raises InvalidURI: the text is no connection string; what is wrong is named, but never the user's name or password.
    :raises TypeError: it is no text.
    """
    if not isinstance(uri, str):
        raise TypeError(f"the MongoDB URI must be a str, not {type(uri)}")
    scheme, rest = _split_scheme(uri)
    authority, _, query = rest.partition("?")
    authority, _, path = authority.partition("/")
    userinfo, at, hosts = authority.rpartition("@")
    username, password = _parse_userinfo(userinfo) if at else (None, None)
    database, collection = _parse_path(path)
    is_srv = scheme == SRV_SCHEME
    return ParsedURI(
        seeds=_parse_srv_host(hosts) if is_srv else tuple(_parse_hosts(hosts)),
        is_srv=is_srv,
        username=username,
        password=password,
        database=database,
        collection=collection,
        options=validate_options(parse_query(query)),
    )


def validate_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Check the options of a URI or of a TXT record.

    An invalid value is warned of and left out; only where that would be unsafe it is refused.

    :param options: texts under the names as they were written; a list for what may be repeated.
    :returns: values under lower-case names, without what was warned of.
    """
    refuse_conflicts(options)
    checked = {}
    for name, value in options.items():
        try:
            key, checked_value = _validate(name, value, _URI_VALIDATORS)
        except (ValueError, TypeError, ConfigurationError) as error:
            if name.lower() in ("tls", "ssl"):
                raise InvalidURI(f"{error}: without it the connection would be in plain text") from None
            if "CANONICALIZE_HOST_NAME" in str(error) and "not a supported" not in str(error):
                raise
            warnings.warn(str(error), UserWarning, stacklevel=2)
            continue
        if key == "authsource" and checked_value == "":
            raise InvalidURI("authSource must not be empty")
        checked[key] = checked_value
    return checked


def validate_keywords(keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Check options given as keywords, whose names may be written in any case.

    :returns: values under lower-case names.
    :raises ConfigurationError: there is no such option.
    :raises TypeError: a value is of the wrong type.
    :raises ValueError: a value is not allowed.
    """
    given = {
        name: value for name, value in keywords.items() if value is not None or name.lower() not in _NONE_IS_DEFAULT
    }
    refuse_conflicts(given)
    return dict(_validate(name, value, _KEYWORD_VALIDATORS) for name, value in given.items())


def refuse_conflicts(options: Mapping[str, Any]) -> None:
    """Refuse options that must not stand together.

    :param options: under names in any case; second names count as such.
    :raises InvalidURI: naming both.
    """
    written = {name.lower(): name for name in options}
    for one, other in _EXCLUSIVE:
        if one.lower() in written and other.lower() in written:
            raise InvalidURI(f"{one} and {other} cannot be given together")
    if "tls" in written and "ssl" in written:
        tls, ssl = (options[written[name]] for name in ("tls", "ssl"))
        if str(tls).lower() != str(ssl).lower():
            raise InvalidURI(f"tls={tls} and ssl={ssl} contradict each other")


def _validate(name: str, value: Any, validators: Mapping[str, Validator]) -> tuple[str, Any]:
    """The lower-case first name of an option and its checked value."""
    lower = name.lower()
    key = _ALIASES.get(lower, lower)
    validator = validators.get(key)
    if validator is None or (lower != key and lower in ("j", "wtimeout") and validators is _URI_VALIDATORS):
        similar = get_close_matches(lower, validators, cutoff=0.6)
        hint = f"; is {' or '.join(similar)} meant?" if similar else ""
        raise ConfigurationError(f"unknown option: {name}{hint}")
    try:
        return key, validator(name, value)
    except KeyError:
        raise ValueError(f"{name}: {value!r} is not one of its values") from None
    except (TypeError, ValueError, ConfigurationError) as error:
        if lower in str(error).lower():
            raise
        raise type(error)(f"{name}: {error}") from None


def _split_scheme(uri: str) -> tuple[str, str]:
    if "://" not in uri.partition("?")[0] and uri:
        uri = SCHEME + uri
    for scheme in (SCHEME, SRV_SCHEME):
        if uri.startswith(scheme):
            if uri == scheme:
                raise InvalidURI(f"{scheme} must be followed by at least one host")
            return scheme, uri[len(scheme) :]
    raise InvalidURI(f"a MongoDB URI begins with {SCHEME!r} or {SRV_SCHEME!r}")


def _parse_userinfo(userinfo: str) -> tuple[str, str | None]:
    username, password = parse_userinfo(userinfo)
    return username, password or None


def _parse_path(path: str) -> tuple[str | None, str | None]:
    """Database and collection; the text may hold the rest of an unescaped password, so errors do not repeat it."""
    if not path:
        return None, None
    database, dot, collection = unquote_plus(path).partition(".")
    if _BAD_IN_DATABASE_NAMES.search(database):
        raise InvalidURI(
            "the database name in the URI must not contain '/', ' ', '\"' or '$' (a '/' in a user name, password or "
            "socket path is written as %2F)"
        )
    return database or None, collection if dot else None


def _parse_hosts(hosts: str) -> Iterator[Address]:
    for entity in hosts.split(","):
        if not entity:
            raise InvalidURI("a host is empty in the URI (a comma too many? a '/' in a socket path is written as %2F)")
        yield _parse_host(entity)


def _parse_host(entity: str) -> Address:
    if entity.endswith(".sock"):
        return unquote_plus(entity), None
    if entity.startswith("["):
        entity = entity.replace("%25", "%")  # the zone of an IPv6 address: RFC 6874
    elif "%" in entity:
        raise InvalidURI("a host in the URI contains '%': only socket paths, which end in '.sock', are written with it")
    host, port = parse_host(entity, DEFAULT_PORT)
    if not host:
        raise InvalidURI("a host is empty in the URI")
    return host, port


def _parse_srv_host(hosts: str) -> tuple[Address, ...]:
    if "," in hosts or not hosts:
        raise InvalidURI(f"{SRV_SCHEME} URIs name exactly one host")
    if ":" in hosts:
        raise InvalidURI(f"{SRV_SCHEME} URIs must not name a port")
    return ((hosts.lower(), None),)


def parse_query(query: str) -> dict[str, Any]:
    """Names and texts of the options in a query or a TXT record.

    :returns: texts under the names as they were written; a name that stands twice is warned of, and its last value
        counts.
    :raises InvalidURI: it is not a list of options.
    """
    options: dict[str, Any] = {}
    written: dict[str, str] = {}
    for item in _split_query(query):
        name, equals, value = item.partition("=")
        lower = name.lower()
        if not name or not equals or "=" in value:
            raise InvalidURI("the options of a MongoDB URI are key=value pairs, joined by '&'")
        if lower == "readpreferencetags":
            options.setdefault(written.setdefault(lower, name), []).append(value)
            continue
        if lower != "authmechanismproperties":
            value = unquote_plus(value)
        earlier = written.setdefault(lower, name)
        if earlier in options:
            _repeated(lower, earlier, options[earlier], value)
        options[earlier] = value
    return options


def _repeated(lower: str, name: str, first: str, second: str) -> None:
    if lower in ("tls", "ssl") and first != second:
        raise InvalidURI(f"{name}={first} and {name}={second} contradict each other")
    if lower not in ("tls", "ssl"):
        warnings.warn(f"duplicate URI option {name}: the last value counts", UserWarning, stacklevel=2)


def _split_query(query: str) -> list[str]:
    if "&" in query and ";" in query:
        raise InvalidURI("the options of a MongoDB URI are joined either by '&' or by ';', not by both")
    return re.split("[&;]", query) if query else []
