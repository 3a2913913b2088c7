"""As whom, and in whose name, a client's new connections are made: the connector that it has at present.

Users may be added while the client is in use, libraries may name themselves, and DNS tells some of the settings late:
then the next connections are made by another connector. How one is made is :mod:`txmongo._cmap.connector`'s; that the
present connections end when they have to is the pool's, which is told by who changes the users.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
from pymongo.driver_info import DriverInfo
from twisted.internet.defer import Deferred

from txmongo._cmap.connector import Connector, Discarded, EndpointFor
from txmongo._cmap.description import StreamDescription
from txmongo._cmap.endpoints import Endpoints
from txmongo._pymongo import MongoCredential
from txmongo._settings import ClientSettings
from txmongo.protocol import MongoProtocol
from txmongo.types import Address

__all__ = ["CurrentConnector"]


class CurrentConnector:
    """Connects to the servers of one client, each time as it is to be done by then.

    :param settings: the client's, as far as they are known.
    :param reactor: makes the connections, and is the clock.
    :param endpoint_for: where an address is reached; if it is not given the settings say it.
    :raises ConfigurationError: the mechanism of the credentials is not supported.
    """

    def __init__(self, settings: ClientSettings, reactor: Any, endpoint_for: EndpointFor | None = None) -> None:
        self._settings = settings
        self._reactor = reactor
        self._endpoint_for = endpoint_for
        self._wrappers: list[DriverInfo] = []
        #: Who was added, by the database.
        self._added: dict[str, MongoCredential] = {}
        self._discarded = Discarded()
        self._connector = self._create()

    def _create(self) -> Connector:
        settings = self._settings
        endpoint_for = self._endpoint_for or Endpoints(self._reactor, settings)
        users = [*self.users.values()]
        first, further = users[0] if users else None, users[1:]
        if first is not settings.credentials:
            settings = attrs.evolve(settings, credentials=first)
        connector = Connector(settings, endpoint_for, self._reactor, further, self._discarded)
        for wrapper in self._wrappers:
            connector.append_metadata(wrapper)
        return connector

    # --- what may change ---

    @property
    def users(self) -> dict[str, MongoCredential]:
        """Whom connections are authenticated as, by the database."""
        credentials = self._settings.credentials
        return ({} if credentials is None else {credentials.source: credentials}) | self._added

    def added_user(self, database: str) -> MongoCredential | None:
        """The user of a database that was added, if there is one."""
        return self._added.get(database)

    def set_user(self, database: str, user: MongoCredential | None) -> None:
        """Authenticate new connections as this user of a database; ``None`` for the one of the settings, or nobody."""
        if user is None:
            del self._added[database]
        else:
            self._added[database] = user
        self._connector = self._create()

    def append_metadata(self, wrapper: DriverInfo) -> None:
        """Name a library around the driver in the metadata of connections made from now on.

        :raises ValueError: one of its fields contains the delimiter ``|``.
        """
        self._connector.append_metadata(wrapper)
        self._wrappers.append(wrapper)

    def use(self, settings: ClientSettings) -> None:
        """Take over settings of which more is known than before."""
        self._settings = settings
        self._connector = self._create()

    # --- connections ---

    def connect(self, address: Address) -> Deferred[tuple[MongoProtocol, StreamDescription]]:
        """Make a connection for commands; see :meth:`Connector.connect`."""
        return self._connector.connect(address)

    def connect_monitor(self, address: Address) -> Deferred[tuple[MongoProtocol, Mapping[str, Any], float]]:
        """Make a connection for monitoring; see :meth:`Connector.connect_monitor`."""
        return self._connector.connect_monitor(address)

    def drained(self) -> Deferred[None]:
        """Wait until nothing is left of attempts that failed or were cancelled; see :meth:`Connector.drained`."""
        return self._discarded.drained()
