"""Finds the servers behind a ``mongodb+srv`` name, by DNS that never blocks, and looks again while that is useful.

Which returned hosts may be believed are pure rules (:func:`verify_hosts`, :func:`allowed_domain`); :class:`SrvResolver`
asks DNS through anything like ``twisted.names``; :class:`SrvPoller` repeats that for clusters of mongos. Initial DNS
Seedlist Discovery and "Polling SRV Records for mongos Discovery" specifications.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from ipaddress import ip_address
from random import Random
from typing import TYPE_CHECKING, Any, Protocol

import attrs
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.names import dns
from twisted.names.error import DNSNameError
from twisted.python.failure import Failure

from txmongo._dns import DNS_TIMEOUTS, Answers
from txmongo._sdam.description import format_address
from txmongo.errors import ConfigurationError

if TYPE_CHECKING:
    from txmongo._settings import ClientSettings
    from txmongo.types import Address

__all__ = [
    "DNSResolver",
    "SrvHosts",
    "SrvPoller",
    "SrvResolver",
    "allowed_domain",
    "choose_hosts",
    "verify_hosts",
]

_log = Logger(namespace="txmongo.sdam.srv")

#: Seconds between two looks at the SRV records, at the least.
_MIN_RESCAN_INTERVAL = 60.0

#: Names of one label that are reserved for private use, so that no stranger can own a host below them.
_PRIVATE_LABELS = frozenset({"corp", "example", "home", "internal", "invalid", "local", "localhost", "mail", "test"})

#: The parts of a name below which its first one is its own and the rest its domain's.
_PARTS_WITH_SUBDOMAIN = 3


class DNSResolver(Protocol):
    """What is needed of a ``twisted.names`` resolver; a test may give its own."""

    def lookupService(self, name: str, timeout: Sequence[int] = ...) -> Deferred[Answers]:
        """The SRV records of a name."""
        ...

    def lookupText(self, name: str, timeout: Sequence[int] = ...) -> Deferred[Answers]:
        """The TXT records of a name."""
        ...


@attrs.frozen
class SrvHosts:
    """What the SRV records of a name said.

    :ivar hosts: addresses in the records' order; not verified yet.
    :ivar ttl: seconds for which the shortest-lived of the records holds.
    """

    hosts: tuple[Address, ...]
    ttl: float


def allowed_domain(fqdn: str, suffix: str | None = None) -> str:
    """The domain below which every host must lie that the SRV records of ``fqdn`` name.

    :param suffix: the ``srvAllowedHostsSuffix`` option, which replaces it.
    :raises ConfigurationError: ``fqdn`` is an IP address, or ``suffix`` is so wide that anybody may have a host there.
    """
    _refuse_ip_address(fqdn)
    if suffix is None:
        parts = fqdn.rstrip(".").lower().split(".")
        return ".".join(parts[1:] if len(parts) >= _PARTS_WITH_SUBDOMAIN else parts)
    domain = suffix.strip(".").lower()
    if not domain or ("." not in domain and domain not in _PRIVATE_LABELS):
        raise ConfigurationError(f"srvAllowedHostsSuffix={suffix} is no domain that belongs to one owner")
    return domain


def _refuse_ip_address(fqdn: str) -> None:
    try:
        ip_address(fqdn)
    except ValueError:
        return
    raise ConfigurationError(f"mongodb+srv://{fqdn}: an IP address has no SRV records, give a host name")


def verify_hosts(
    hosts: Iterable[Address], domain: str, validator: Callable[[str], Any] | None = None
) -> tuple[list[Address], list[Address]]:
    """Tell hosts that may be connected to from those that somebody may have smuggled into DNS.

    :param validator: the ``srv_host_validator`` option, which replaces the look at the domain.
    :returns: the good ones and the bad ones.
    """
    good: list[Address] = []
    bad: list[Address] = []
    for address in hosts:
        accepted = validator(address[0]) is True if validator is not None else address[0].endswith("." + domain)
        (good if accepted else bad).append(address)
    return good, bad


def choose_hosts(hosts: Sequence[Address], limit: int, random: Random) -> tuple[Address, ...]:
    """All of the hosts, or as many of them by chance as ``srvMaxHosts`` allows; 0 is no limit."""
    if not limit or limit >= len(hosts):
        return tuple(hosts)
    return tuple(random.sample(list(hosts), limit))


class SrvResolver:
    """Asks DNS what stands behind the name of a ``mongodb+srv`` connection string.

    :param resolver: such as :class:`~txmongo._dns.SystemResolver`.
    :param random: chooses where ``srvMaxHosts`` is less than there are.
    """

    def __init__(self, resolver: DNSResolver, random: Random | None = None) -> None:
        self._resolver = resolver
        self._random = random or Random()

    def discover(self, settings: ClientSettings) -> Deferred[tuple[ClientSettings, float]]:
        """Complete the settings of a client with what DNS says.

        :returns: a Deferred that fires with settings whose seeds and options are complete, and with the seconds for
            which the SRV records hold; cancelling it ends the queries. It fails with
            :class:`~txmongo.errors.ConfigurationError` if there are no SRV records, DNS did not answer, a host is not
            to be believed, or the TXT record says what it may not.
        """
        fqdn = settings.fqdn
        assert fqdn is not None
        try:
            domain = allowed_domain(fqdn, settings.srv_allowed_hosts_suffix)
        except ConfigurationError:
            return _failed()
        queries: list[Deferred[Any]] = [self.look_up(settings), self._look_up_text(fqdn)]
        both: Deferred[Any] = gatherResults(queries, consumeErrors=True)
        both.addErrback(_first_error)
        return both.addCallback(self._complete, settings, domain)

    def look_up(self, settings: ClientSettings) -> Deferred[SrvHosts]:
        """The hosts that the SRV records name, not verified; fails with ``ConfigurationError``."""
        name = f"_{settings.srv_service_name}._tcp.{settings.fqdn}"
        answered = self._resolver.lookupService(name, timeout=DNS_TIMEOUTS)
        answered.addErrback(_dns_failed, name)
        return answered.addCallback(_read_services, name)

    def _look_up_text(self, fqdn: str) -> Deferred[str | None]:
        """The text of the TXT record, or ``None`` where there is none; fails with ``ConfigurationError``."""
        answered = self._resolver.lookupText(fqdn, timeout=DNS_TIMEOUTS)
        answered.addErrback(_no_text, fqdn)
        return answered.addCallback(_read_text, fqdn)

    def _complete(
        self, found: tuple[SrvHosts, str | None], settings: ClientSettings, domain: str
    ) -> tuple[ClientSettings, float]:
        services, text = found
        validator = settings.srv_host_validator
        try:
            good, bad = verify_hosts(services.hosts, domain, validator)
        except Exception as error:
            raise ConfigurationError(f"srv_host_validator failed: {error}") from error
        if bad:
            reason = "srv_host_validator does not accept it" if validator else f"it does not lie below {domain}"
            raise ConfigurationError(f"DNS names {format_address(bad[0])} as a server of {settings.fqdn}, but {reason}")
        seeds = choose_hosts(good, settings.srv_max_hosts, self._random)
        # What contradicts the number of hosts must be refused for all of them, not for those chosen by chance.
        settings.resolved(good, text)
        return settings.resolved(seeds, text), services.ttl


def _failed() -> Deferred[Any]:
    deferred: Deferred[Any] = Deferred()
    deferred.errback()
    return deferred


def _first_error(failure: Failure) -> Failure:
    """What went wrong, out of what gatherResults wraps it in."""
    return getattr(failure.value, "subFailure", failure)


def _dns_failed(failure: Failure, name: str) -> Failure:
    if failure.check(CancelledError):
        return failure
    error = ConfigurationError(f"the servers of {name} could not be looked up: {_dns_reason(failure)}")
    error.__cause__ = failure.value
    return Failure(error)


def _dns_reason(failure: Failure) -> str:
    text = failure.getErrorMessage()
    return f"{type(failure.value).__name__}: {text}" if len(text) < 200 else type(failure.value).__name__


def _read_services(answers: Answers, name: str) -> SrvHosts:
    records = [record for record in answers[0] if record.type == dns.SRV]
    if not records:
        raise ConfigurationError(f"{name} has no SRV records")
    hosts = dict.fromkeys((_host_name(record.payload.target), int(record.payload.port)) for record in records)
    return SrvHosts(tuple(hosts), float(min(record.ttl for record in records)))


def _host_name(target: Any) -> str:
    return str(target).rstrip(".").lower()


def _no_text(failure: Failure, fqdn: str) -> Answers | Failure:
    """No TXT record is no error; a DNS server that does not work is one."""
    if failure.check(DNSNameError):
        return [], [], []
    if failure.check(CancelledError):
        return failure
    raise ConfigurationError(f"the options of {fqdn} could not be looked up: {_dns_reason(failure)}")


def _read_text(answers: Answers, fqdn: str) -> str | None:
    records = [record for record in answers[0] if record.type == dns.TXT]
    if not records:
        return None
    if len(records) > 1:
        raise ConfigurationError(f"{fqdn} has {len(records)} TXT records, only one is allowed")
    return b"".join(records[0].payload.data).decode("utf-8", "replace")


class SrvPoller:
    """Looks at the SRV records again and again, as long as they may be news: while the deployment may be sharded.

    :param look_up: asks DNS.
    :param wanted: whether the topology still is of a kind whose hosts come from DNS; if not, polling ends for good.
    :param on_hosts: told the verified hosts, never none.
    """

    def __init__(
        self,
        settings: ClientSettings,
        ttl: float,
        *,
        clock: IReactorTime,
        look_up: Callable[[ClientSettings], Deferred[SrvHosts]],
        wanted: Callable[[], bool],
        on_hosts: Callable[[Sequence[Address]], None],
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._look_up = look_up
        self._wanted = wanted
        self._on_hosts = on_hosts
        self._pending: Deferred[Any] | None = None
        self._stopped = False
        self._timer: IDelayedCall | None = clock.callLater(max(ttl, _MIN_RESCAN_INTERVAL), self._poll)

    def stop(self) -> None:
        """End polling; nothing is left scheduled."""
        self._stopped = True
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.cancel()

    def _poll(self) -> None:
        self._timer = None
        if not self._wanted():
            self._stopped = True
            return
        looked_up: Deferred[Any] = self._look_up(self._settings)
        self._pending = looked_up
        looked_up.addCallback(self._verify)
        looked_up.addErrback(self._kept)
        looked_up.addCallback(self._schedule)

    def _verify(self, found: SrvHosts) -> float:
        """Pass on what may be believed; returns when to look again."""
        settings = self._settings
        domain = allowed_domain(settings.fqdn or "", settings.srv_allowed_hosts_suffix)
        good, bad = verify_hosts(found.hosts, domain, settings.srv_host_validator)
        for address in bad:
            _log.warn(
                "DNS names {address} as a server of {fqdn}, where it does not belong: ignored",
                address=format_address(address),
                fqdn=settings.fqdn,
            )
        if not good:
            return settings.heartbeat_frequency
        if not self._stopped and self._wanted():
            self._on_hosts(good)
        return max(found.ttl, _MIN_RESCAN_INTERVAL)

    def _kept(self, failure: Failure) -> float:
        """DNS did not answer: the topology stays as it is."""
        if not self._stopped:
            _log.warn("The servers stay as they are: {reason}", reason=failure.getErrorMessage())
        return self._settings.heartbeat_frequency

    def _schedule(self, interval: float) -> None:
        self._pending = None
        if not self._stopped:
            self._timer = self._clock.callLater(interval, self._poll)
