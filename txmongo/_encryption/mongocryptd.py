"""mongocryptd, a process on the same machine that tells what of a command is to be encrypted.

Client-side encryption specification, "Managing mongocryptd". It is reached by a client of its own, and started where
nobody answers. Once it runs it is everybody's: it ends by itself when nobody has asked it anything for a while.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from bson.raw_bson import RawBSONDocument
from pymongo.monitoring import (
    ServerHeartbeatFailedEvent,
    ServerHeartbeatListener,
    ServerHeartbeatStartedEvent,
    ServerHeartbeatSucceededEvent,
)
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from txmongo._encryption.key_vault import RAW
from txmongo._settings import parse_settings
from txmongo.errors import AutoReconnect, ConfigurationError, ServerSelectionTimeoutError

if TYPE_CHECKING:
    from txmongo.connection import ConnectionPool

__all__ = ["Mongocryptd", "Spawner", "spawn_command"]

#: Milliseconds in which it should be found.
_SELECTION_TIMEOUT = 10_000
#: Seconds between two questions.
_PAUSE = 0.1
_IDLE_OPTION = "--idleShutdownTimeoutSecs"


def spawn_command(path: Any, arguments: Any) -> list[str]:
    """What starts a mongocryptd.

    :param path: the executable's name or path; ``mongocryptd`` if it is empty.
    :param arguments: a list of what stands behind it; how long it stays without work is added if it is not among them.
    :raises TypeError: one is not of its type.
    """
    if path is not None and not isinstance(path, str | os.PathLike):
        raise TypeError(f"mongocryptd_spawn_path must be a str, not {type(path).__name__}")
    if isinstance(arguments, str) or not isinstance(arguments, Sequence):
        raise TypeError(f"mongocryptd_spawn_args must be a list of str, not {type(arguments).__name__}")
    for each in arguments:
        if isinstance(each, bool) or not isinstance(each, str | int):
            raise TypeError(f"each of mongocryptd_spawn_args must be a str, not {type(each).__name__}")
    given = [str(each) for each in arguments]
    if not any(each.partition("=")[0] == _IDLE_OPTION for each in given):
        given.append(f"{_IDLE_OPTION}=60")
    return [os.fspath(path or "mongocryptd"), *given]


class Spawner(ServerHeartbeatListener):
    """Starts mongocryptd when it is wanted and cannot be reached, once for all who want it at the same time.

    :param reactor: starts processes.
    :param command: as :func:`spawn_command` makes it.
    :ivar outcome: what became of the last start, for an error; empty if there was none.
    """

    def __init__(self, reactor: Any, command: Sequence[str]) -> None:
        self.outcome = ""
        self._reactor = reactor
        self._command = list(command)
        self._wanted_by = 0
        #: A process was started, or could not be, for those who want it now.
        self._tried = False
        self._runs = False

    @contextmanager
    def wanted(self) -> Iterator[None]:
        """It is wanted for the time of this block."""
        self._wanted_by += 1
        try:
            yield
        finally:
            self._wanted_by -= 1
            self._tried = False

    def started(self, event: ServerHeartbeatStartedEvent) -> None:
        """It is about to be looked for."""

    def succeeded(self, event: ServerHeartbeatSucceededEvent) -> None:
        """It is there."""

    def failed(self, event: ServerHeartbeatFailedEvent) -> None:
        """It is not there."""
        self.not_there()

    def not_there(self) -> None:
        """Start it, if it is wanted and that was not tried yet."""
        if self._wanted_by and not self._tried and not self._runs:
            self._tried = True
            self._start()

    def _start(self) -> None:
        executable = shutil.which(self._command[0])
        if executable is None:
            self.outcome = f"; mongocryptd_spawn_path: there is no executable {self._command[0]!r}"
            return
        # What it says is nobody's here: --logpath has it written.
        null = os.open(os.devnull, os.O_RDWR)
        try:
            self._reactor.spawnProcess(
                _Watch(self._ended), executable, self._command, env=None, childFDs={0: null, 1: null, 2: null}
            )
        except Exception as error:
            self.outcome = f"; {executable} could not be started: {error}"
        else:
            self._runs = True
            self.outcome = f"; {executable} was started"
        finally:
            os.close(null)

    def _ended(self, reason: BaseException | None) -> None:
        self._runs = False
        how = getattr(reason, "exitCode", None)
        how = f"exit code {how}" if how is not None else f"signal {getattr(reason, 'signal', '?')}"
        self.outcome = f"; {self._command[0]} was started, and has ended with {how}"


class _Watch(ProcessProtocol):
    """Hears of the end of a process."""

    def __init__(self, on_end: Callable[[BaseException | None], None]) -> None:
        self._on_end = on_end

    def processEnded(self, reason: Failure) -> None:
        self._on_end(reason.value)


class Mongocryptd:
    """The client of a mongocryptd.

    :param uri: ``mongocryptd_uri``.
    :param reactor: keeps the time.
    :param make_client: makes a client by a connection string and options.
    :param spawner: starts it; ``None`` if somebody else does.
    :ivar client: to be disconnected by who made this.
    :raises TypeError: the connection string is no str.
    :raises ConfigurationError: it cannot be used.
    """

    def __init__(
        self, uri: Any, reactor: Any, make_client: Callable[..., ConnectionPool[Any]], spawner: Spawner | None
    ) -> None:
        if not isinstance(uri, str):
            raise TypeError(f"mongocryptd_uri must be a str, not {type(uri).__name__}")
        options: dict[str, Any] = {}
        try:
            if "serverselectiontimeoutms" not in parse_settings(uri).options:
                options["serverSelectionTimeoutMS"] = _SELECTION_TIMEOUT
        except (ConfigurationError, ValueError) as error:
            raise ConfigurationError(f"mongocryptd_uri: {error}") from error
        if spawner is not None:
            options["event_listeners"] = [spawner]
        self._reactor = reactor
        self._spawner = spawner
        self.client = make_client(uri, **options)

    def _place(self) -> str:
        """Where it is looked for; a connection string might have a password."""
        return ", ".join(host if port is None else f"{host}:{port}" for host, port in self.client.options.seeds)

    async def mark(self, database: str, command: bytes) -> bytes:
        """Have what is to be encrypted in a command marked.

        :returns: its reply.
        :raises ServerSelectionTimeoutError: it is not there.
        :raises AutoReconnect: it was lost, and has not come back.
        """
        if self._spawner is None:
            return await self._mark(database, command)
        with self._spawner.wanted():
            return await self._mark(database, command)

    async def _mark(self, database: str, command: bytes) -> bytes:
        """Ask until it answers, or as long as it is looked for."""
        give_up_at = self._reactor.seconds() + self.client.options.server_selection_timeout
        while True:
            try:
                reply = await self.client[database].command(RawBSONDocument(command), codec_options=RAW)
            except ServerSelectionTimeoutError as error:
                raise self._not_there(error) from error
            except AutoReconnect as error:
                if error.timeout or self._reactor.seconds() >= give_up_at:
                    raise self._not_there(error) from error
            else:
                return bytes(reply.raw)
            # It has ended, for want of work perhaps, and the client's monitor has not looked for it since then.
            if self._spawner is not None:
                self._spawner.not_there()
            await deferLater(self._reactor, _PAUSE)

    def _not_there(self, error: AutoReconnect) -> AutoReconnect:
        return type(error)(
            f"mongocryptd, which tells what of a command is to be encrypted, cannot be reached at mongocryptd_uri "
            f"({self._place()}){'' if self._spawner is None else self._spawner.outcome}: start it, or give "
            f"crypt_shared_lib_path; or else bypass_query_analysis or bypass_auto_encryption: {error}"
        )
