"""A throw-away mongod."""

from __future__ import annotations

import signal
import socket
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import attrs
from twisted.internet import defer

from txmongo._cmap.connector import Connector
from txmongo._cmap.endpoints import Endpoints
from txmongo._settings import parse_settings
from txmongo._testing.binary import find_mongod
from txmongo._testing.den import Den, NotInTime, wait_until

READY = b'"id":23016,'  # "Waiting for connections"
ADDRESS_IN_USE = 48
ROOT = ("root", "open sesame/1:@")  # what a URI must escape is in it


class MongodFailed(Exception):
    """mongod did not start or did not do as asked; the text ends with the last lines of its log."""


@attrs.frozen
class TLSFiles:
    """The files that make a server speak TLS only, and our side able to reach it.

    :ivar certificate_key_file: the server's certificate and key, in PEM.
    :ivar ca_file: the authority that signed the certificates of both sides.
    :ivar client_certificate_key_file: what our own commands present; needed where the server wants client certificates.
    :ivar require_client_certificate: refuse clients that present none.
    :ivar certificate_key_file_password: for an encrypted server key.
    """

    certificate_key_file: Path
    ca_file: Path
    client_certificate_key_file: Path | None = None
    require_client_certificate: bool = False
    certificate_key_file_password: str | None = attrs.field(default=None, repr=False)

    def arguments(self) -> list[str]:
        """mongod's options."""
        given = ["--tlsMode", "requireTLS", "--tlsCertificateKeyFile", str(self.certificate_key_file.absolute())]
        given += ["--tlsCAFile", str(self.ca_file.absolute())]
        if not self.require_client_certificate:
            given.append("--tlsAllowConnectionsWithoutCertificates")
        if self.certificate_key_file_password is not None:
            given += ["--tlsCertificateKeyFilePassword", self.certificate_key_file_password]
        return given

    def uri_options(self) -> dict[str, str]:
        """The options of a connection string."""
        options = {"tls": "true", "tlsCAFile": str(self.ca_file)}
        if self.client_certificate_key_file is not None:
            options["tlsCertificateKeyFile"] = str(self.client_certificate_key_file)
        return options


def free_port(host: str) -> int:
    """A port of this machine that nobody listens on just now."""
    family, _, _, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
    with socket.socket(family) as listener:
        listener.bind(address)
        return int(listener.getsockname()[1])


class Mongod:
    """A mongod on a free port of the loopback interface, its data in a folder that goes when it goes.

    Server and folder are gone after :meth:`stop`, and also when the process that started them ends in any other way.
    Nothing of it stays in the reactor between two calls: one server may serve many test cases under trial.

    .. code-block:: python

        mongod = await Mongod(reactor).start()
        client = ConnectionPool(mongod.uri)
        ...
        await mongod.stop()

    :param reactor: that runs the process, ``twisted.internet.reactor`` as a rule.
    :param binary: path of mongod; found as :func:`find_mongod` says if not given.
    :param auth: require authentication; a user with the role ``root`` is made and stands in :attr:`uri`.
    :param key: the shared secret of the members of a replica set (its keyFile), which implies ``auth``.
    :param tls: the files to speak TLS with.
    :param replica_set: name of the set that it is to be a member of.
    :param host: the loopback address or name to listen on: ``127.0.0.1``, ``::1`` or ``localhost``.
    :param unix_socket: listen on a UNIX socket as well, :attr:`socket_path`.
    :param parameters: server parameters by name (``--setParameter``), such as ``{"enableTestCommands": 1}``.
    :param arguments: further arguments of mongod.
    :param cache_gb: size of WiredTiger's cache, in GB.
    :param start_timeout: seconds until :meth:`start` gives up.
    """

    def __init__(
        self,
        reactor: Any,
        *,
        binary: str | None = None,
        auth: bool = False,
        key: str | None = None,
        tls: TLSFiles | None = None,
        replica_set: str | None = None,
        host: str = "127.0.0.1",
        unix_socket: bool = False,
        parameters: Mapping[str, object] | None = None,
        arguments: Sequence[str] = (),
        cache_gb: float = 0.25,
        start_timeout: float = 60.0,
    ) -> None:
        self.auth = auth or key is not None
        self.tls = tls
        self.replica_set = replica_set
        #: Name and password of the user with the role ``root``, once there is one.
        self.credentials: tuple[str, str] | None = None
        #: The name or address it listens on.
        self.host = host
        #: The port it listens on, from its first start on.
        self.port: int | None = None
        self._unix_socket = unix_socket
        self._reactor = reactor
        self._binary = binary
        self._key = key
        self._parameters = dict(parameters or {})
        self._arguments = list(arguments)
        self._cache_gb = cache_gb
        self._start_timeout = start_timeout
        self._den: Den | None = None

    def __repr__(self) -> str:
        return f"<Mongod {self.host}:{self.port or '?'} {'running' if self.running else 'stopped'}>"

    @property
    def address(self) -> tuple[str, int]:
        """Host and port.

        :raises RuntimeError: before the first start.
        """
        if self.port is None:
            raise RuntimeError("a Mongod has no address before its first start()")
        return self.host, self.port

    @property
    def uri(self) -> str:
        """A connection string for it, with the credentials of the root user if it has one."""
        return make_uri([self.address], self.credentials, self.tls, {})

    @property
    def running(self) -> bool:
        """Whether its process runs, frozen or not."""
        return self._den is not None and self._den.running

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        return self._den.pid if self._den is not None and self._den.running else None

    @property
    def folder(self) -> Path | None:
        """Where its data and its log are, until it is stopped."""
        return None if self._den is None else self._den.folder

    @property
    def socket_path(self) -> Path | None:
        """Its UNIX socket while it runs, if it was asked for one."""
        return self.folder / f"mongodb-{self.port}.sock" if self.folder and self._unix_socket else None

    def log(self) -> str:
        """What it has logged since its first start."""
        return "" if self._den is None else self._den.log_file.read_text(errors="replace")

    def start(self) -> defer.Deferred[Mongod]:
        """Start it, or start it again on its old port and data after :meth:`kill`.

        :returns: a Deferred that fires with itself once it takes commands (with ``auth``: of the root user). It fails
            with :class:`MongodNotFound`, or with :class:`MongodFailed` and the last lines of its log.
        """
        return defer.Deferred.fromCoroutine(self._start())

    async def _start(self) -> Mongod:
        binary = self._binary or find_mongod()
        try:
            if self._den is None:
                self._den = Den(self._reactor)
                await self._den.open()
            await self._listen(self._den, binary)
            if self.auth and self.credentials is None and self.replica_set is None:
                await self.create_root_user()
        except BaseException:
            if self.port is None or not self.running:
                await self.stop()
            raise
        return self

    async def _listen(self, den: Den, binary: str) -> None:
        """Run it until it listens; on another port, or later, if somebody took its port first."""
        give_up_at = self._reactor.seconds() + self._start_timeout
        restart = self.port is not None
        while True:
            port = self.port if restart and self.port is not None else free_port(self.host)
            seen = den.log_file.stat().st_size if den.log_file.exists() else 0
            try:
                await den.run(self._command(den, binary, port))
                listening = partial(self._listening_or_gone, den, seen)
                await wait_until(self._reactor, listening, give_up_at - self._reactor.seconds())
            except (OSError, NotInTime) as error:
                raise self._failed(den, binary, str(error)) from error
            if den.running:
                self.port = port
                return
            if den.exit_code != ADDRESS_IN_USE or self._reactor.seconds() >= give_up_at:
                raise self._failed(den, binary, f"it exited with code {den.exit_code}")

    @staticmethod
    def _listening_or_gone(den: Den, seen: int) -> bool:
        return not den.running or READY in den.log_file.read_bytes()[seen:]

    def _failed(self, den: Den, binary: str, why: str) -> MongodFailed:
        lines = den.log_file.read_text(errors="replace").splitlines() if den.log_file.exists() else []
        return MongodFailed("\n".join([f"{binary} did not start: {why}. Its last lines:", *lines[-15:]]))

    def _command(self, den: Den, binary: str, port: int) -> list[str]:
        command = [binary, "--dbpath", str(den.folder), "--bind_ip", self.host, "--port", str(port)]
        command += ["--unixSocketPrefix", str(den.folder)] if self._unix_socket else ["--nounixsocket"]
        if ":" in self.host:
            command.append("--ipv6")
        command += ["--wiredTigerCacheSizeGB", str(self._cache_gb)]
        parameters = {"diagnosticDataCollectionEnabled": "false", **self._parameters}
        for name, value in parameters.items():
            text = str(value).lower() if isinstance(value, bool) else str(value)
            command += ["--setParameter", f"{name}={text}"]
        if self.replica_set is not None:
            command += ["--replSet", self.replica_set, "--oplogSize", "64"]
        if self._key is not None:
            key_file = den.folder / "key"
            if not key_file.exists():
                key_file.touch(0o600)
                key_file.write_text(self._key)
            command += ["--keyFile", str(key_file)]
        elif self.auth:
            command.append("--auth")
        if self.tls is not None:
            command += self.tls.arguments()
        return command + self._arguments

    def create_root_user(self) -> defer.Deferred[None]:
        """Make the root user by the localhost exception; :meth:`start` does it for a standalone with ``auth``.

        :returns: a Deferred that fires with ``None``; from then on :attr:`credentials` are set. It fails as that of
            :meth:`command`.
        """

        def created(_: object) -> None:
            self.credentials = ROOT

        name, password = ROOT
        command = {"createUser": name, "pwd": password, "roles": [{"role": "root", "db": "admin"}]}
        # In a replica set no election is to undo it.
        return self.command("admin", {**command, "writeConcern": {"w": "majority"}}).addCallback(created)

    def command(self, database: str, command: Mapping[str, Any]) -> defer.Deferred[dict[str, Any]]:
        """Run a command on a connection of its own, as the root user if there is one; say, to set a fail point.

        :param database: the name of the database that it is for.
        :param command: the whole command, its name first.
        :returns: a Deferred that fires with the reply. It fails with :class:`~txmongo.errors.OperationFailure` if the
            command does, and with :class:`~txmongo.errors.AutoReconnect` if the server cannot be reached.
        """
        return defer.Deferred.fromCoroutine(self._run_command(database, command))

    async def _run_command(self, database: str, command: Mapping[str, Any]) -> dict[str, Any]:
        settings = parse_settings(self.uri)
        connector = Connector(settings, Endpoints(self._reactor, settings), self._reactor)
        protocol, _ = await connector.connect(self.address)
        gone: defer.Deferred[None] = defer.Deferred()
        protocol.lost_hook = lambda _: gone.callback(None)
        try:
            return await protocol.command(database, command)
        finally:
            protocol.close()
            await gone

    def freeze(self) -> None:
        """Stop it in its tracks (SIGSTOP): its sockets stay open and nobody answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on (SIGCONT) after :meth:`freeze`."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._den is not None:
            self._den.signal(number)

    def kill(self) -> defer.Deferred[None]:
        """Kill it (SIGKILL); port and data stay for the next :meth:`start`.

        :returns: a Deferred that fires with ``None`` when it is gone; it does not fail.
        """
        return defer.succeed(None) if self._den is None else self._den.kill().addCallback(lambda _: None)

    def stop(self) -> defer.Deferred[None]:
        """Kill it and remove its data.

        :returns: a Deferred that fires with ``None`` when both are gone; it does not fail.
        """
        den, self._den = self._den, None
        self.port = self.credentials = None
        return defer.succeed(None) if den is None else den.close()


def make_uri(
    addresses: Sequence[tuple[str, int]],
    credentials: tuple[str, str] | None,
    tls: TLSFiles | None,
    options: Mapping[str, str],
) -> str:
    """A connection string."""
    user = "" if credentials is None else ":".join(quote(part, safe="") for part in credentials) + "@"
    hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in addresses)
    query = urlencode({**options, **({} if tls is None else tls.uri_options())}, safe="/")
    return f"mongodb://{user}{hosts}/" + (f"?{query}" if query else "")
