"""A realm of Kerberos for tests: a key distribution center on the loopback interface, and tickets from it.

It needs the programs of MIT Kerberos (Debian's krb5-kdc, krb5-admin-server and krb5-user) and, beside
``txmongo[gssapi]``, the package ``gssapi`` for the server's side. pip alone brings none of that.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.utils import getProcessOutputAndValue
from twisted.python.failure import Failure

__all__ = ["NAME", "Realm", "missing"]

NAME = "TXMONGO.TEST"
_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin"))
_PROGRAMS = ("kadmin.local", "kdb5_util", "kinit", "krb5kdc")
_MODULES = ("kerberos", "gssapi")


def missing() -> str:
    """What a realm would need and this system does not have."""
    programs = [name for name in _PROGRAMS if shutil.which(name, path=_PATH) is None]
    return ", ".join([*programs, *(name for name in _MODULES if find_spec(name) is None)])


class Realm:
    """A realm.

    :ivar environment: what programs, this one included, know it by.
    :param folder: for its files; it need not exist.
    """

    def __init__(self, reactor: Any, folder: str) -> None:
        self._reactor = reactor
        self._folder = Path(folder).absolute()
        self._center = _Center()
        self.environment = {
            "KRB5_CONFIG": str(self._folder / "krb5.conf"),
            "KRB5_KDC_PROFILE": str(self._folder / "kdc.conf"),
            "KRB5CCNAME": f"FILE:{self._folder / 'tickets'}",
            "KRB5_KTNAME": f"FILE:{self._folder / 'services'}",
            "KRB5RCACHENAME": "none:",
        }

    async def start(self) -> None:
        """Make it, with nobody in it, and start its center."""
        self._folder.mkdir()
        port = _free_port()
        (self._folder / "krb5.conf").write_text(
            f"[libdefaults]\ndefault_realm = {NAME}\ndns_lookup_kdc = false\ndns_canonicalize_hostname = false\n"
            f"[realms]\n{NAME} = {{\nkdc = 127.0.0.1:{port}\n}}\n[domain_realm]\nlocalhost = {NAME}\n"
        )
        (self._folder / "kdc.conf").write_text(
            f"[realms]\n{NAME} = {{\ndatabase_name = {self._folder}/principals\nkey_stash_file = {self._folder}/stash\n"
            f"kdc_listen = 127.0.0.1:{port}\nkdc_tcp_listen = 127.0.0.1:{port}\n}}\n[logging]\nkdc = STDERR\n"
        )
        await self._run("kdb5_util", "create", "-s", "-P", "master")
        program = shutil.which("krb5kdc", path=_PATH)
        assert program is not None
        environment = {**os.environ, **self.environment}
        self._reactor.spawnProcess(self._center, program, [program, "-n"], environment)
        await self._center.ready

    async def stop(self) -> None:
        """Stop the center."""
        await self._center.stop()

    def pause(self) -> None:
        """Have the center answer nobody until :meth:`resume`."""
        self._center.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Have it go on."""
        self._center.signal(signal.SIGCONT)

    async def add_service(self, principal: str) -> None:
        """Let a server know the key of a service."""
        await self._run("kadmin.local", "-q", f"addprinc -randkey {principal}")
        await self._run("kadmin.local", "-q", f"ktadd -k {self._folder / 'services'} {principal}")

    async def add_user(self, name: str) -> None:
        """Let there be a user, and get the ticket that gets tickets."""
        keys = self.keytab(name)
        await self._run("kadmin.local", "-q", f"addprinc -randkey {name}")
        await self._run("kadmin.local", "-q", f"ktadd -k {keys} {name}")
        await self._run("kinit", "-k", "-t", keys, name)

    def keytab(self, name: str) -> str:
        """The file with the keys of a user."""
        return str(self._folder / name)

    def forget_tickets(self) -> None:
        """Be nobody."""
        (self._folder / "tickets").unlink()

    async def _run(self, name: str, *arguments: str) -> None:
        program = shutil.which(name, path=_PATH)
        environment = {**os.environ, **self.environment}
        output, errors, code = await getProcessOutputAndValue(program, arguments, environment, reactor=self._reactor)
        assert code == 0, (name, output, errors)


class _Center(ProcessProtocol):
    """The process."""

    def __init__(self) -> None:
        self.ready: Deferred[None] = Deferred()
        self._ended: Deferred[None] = Deferred()
        self._said = b""
        self._running = False

    def connectionMade(self) -> None:
        self._running = True

    def errReceived(self, data: bytes) -> None:
        self._said += data
        if not self.ready.called and b"commencing operation" in self._said:
            self.ready.callback(None)

    def processEnded(self, reason: Failure) -> None:
        self._running = False
        if not self.ready.called:
            self.ready.errback(RuntimeError(self._said.decode(errors="replace")))
        self._ended.callback(None)

    def signal(self, number: int) -> None:
        self.transport.signalProcess(number)  # type: ignore[union-attr]

    async def stop(self) -> None:
        if self._running:
            self.signal(signal.SIGKILL)
            await self._ended


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
