"""What TxMongo lets programs do with one connection: old queries, authentication, getLastError.

Methods of :class:`txmongo.protocol.MongoProtocol`, made of those by which it sends a query and a command. The driver
itself needs none of it but the numbers that are noted here.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any

import bson
from bson.codec_options import DEFAULT_CODEC_OPTIONS, CodecOptions
from twisted.internet.defer import Deferred, execute, fail

from txmongo import _auth as auth
from txmongo._auth import MongoAuthenticationError
from txmongo._legacy.last_error import NOT_ANSWERED, check_last_error, last_error
from txmongo._legacy.messages import QUERY_SLAVE_OK, Getmore, Query, Reply
from txmongo._wire.header import DEFAULT_MAX_MESSAGE_SIZE
from txmongo.errors import ConfigurationError

__all__ = ["DEFAULT_MAX_BSON_SIZE", "DEFAULT_MAX_WRITE_BATCH_SIZE", "ProtocolMethods"]

# What a server's hello says of its limits if it says nothing.
DEFAULT_MAX_BSON_SIZE = 16 * 1024 * 1024
DEFAULT_MAX_WRITE_BATCH_SIZE = 1000


class ProtocolMethods(abc.ABC):
    """Methods of a connection.

    :ivar max_message_size: bytes, the longest message that is taken from the server.
    :ivar last_write: the reply to the last write command of the driver's, kept for :meth:`get_last_error`.
    :ivar uri: the connection string of its client in parts, once ``getprotocols()`` has given it out.
    """

    min_wire_version: int | None = None
    max_wire_version: int | None = None
    max_bson_size: int | None = None
    max_write_batch_size: int | None = None
    max_message_size: int
    last_write: Mapping[str, Any] | None = None
    uri: Mapping[str, Any] | None = None

    @abc.abstractmethod
    def command(
        self,
        database: str,
        command: Mapping[str, Any],
        *,
        codec_options: CodecOptions[Any] = DEFAULT_CODEC_OPTIONS,
    ) -> Deferred[dict[str, Any]]:
        """Send a command.

        :param database: and the other arguments: see :meth:`txmongo.protocol.MongoProtocol.command`.
        :returns: a Deferred that fires, and fails, as that of that method.
        """

    @abc.abstractmethod
    def send_query(self, request: Any) -> Deferred[Reply]:
        """Send an OP_QUERY or an OP_GET_MORE.

        :param request: a message.
        :returns: a Deferred that fires, and fails, as that of :meth:`txmongo.protocol.MongoProtocol.send_query`.
        """

    def set_wire_versions(self, min_wire_version: int, max_wire_version: int) -> None:
        """Note which wire versions the server speaks.

        :param min_wire_version: the lowest, as its hello said.
        :param max_wire_version: the highest.
        """
        self.min_wire_version = min_wire_version
        self.max_wire_version = max_wire_version

    def send_QUERY(self, request: Query) -> Deferred[Reply]:
        """Send an OP_QUERY and wait for its OP_REPLY: :meth:`send_query` under TxMongo 15.2's name.

        Servers up to MongoDB 5.0 answer any query.

        :param request: a :class:`Query`.
        :returns: a Deferred that fires with the :class:`Reply`, and fails, as that of :meth:`send_query`.
        """
        return self.send_query(request)

    def send_GETMORE(self, request: Getmore) -> Deferred[Reply]:
        """Send an OP_GET_MORE, to a server up to MongoDB 5.0, and wait for its OP_REPLY.

        :param request: a :class:`Getmore`.
        :returns: a Deferred that fires with the :class:`Reply`, and fails, as that of :meth:`send_query`.
        """
        return self.send_query(request)

    def send_op_query_command(self, database: str, query: Mapping[str, Any]) -> Deferred[dict[str, Any]]:
        """Send a command as an OP_QUERY; today's servers take only a hello this way.

        :param database: the name of the database that it is for.
        :param query: the whole command, its name first.
        :returns: a Deferred that fires with the reply document; it fails as that of :meth:`send_query`.
        """
        request = Query(flags=QUERY_SLAVE_OK, collection=f"{database}.$cmd", query=query)
        return self.send_query(request).addCallback(lambda reply: bson.decode(reply.documents[0]))

    def init_from_hello_response(self, config: Mapping[str, Any]) -> None:
        """Note the versions and limits of the server.

        :param config: its reply to hello.
        """
        self.set_wire_versions(config.get("minWireVersion", 0), config.get("maxWireVersion", 0))
        self.max_bson_size = config.get("maxBsonObjectSize", DEFAULT_MAX_BSON_SIZE)
        self.max_write_batch_size = config.get("maxWriteBatchSize", DEFAULT_MAX_WRITE_BATCH_SIZE)
        self.max_message_size = config.get("maxMessageSizeBytes", DEFAULT_MAX_MESSAGE_SIZE)

    def authenticate(
        self, database_name: str, username: str | None, password: str | None, mechanism: str = "DEFAULT"
    ) -> Deferred[bool]:
        """Authenticate this connection alone; that of all of a client's is
        :meth:`ConnectionPool.authenticate() <txmongo.connection.ConnectionPool.authenticate>`.

        Servers from MongoDB 6.0 on let a connection authenticate once.

        :param database_name: whose user it is.
        :param username: the user's name.
        :param password: the password.
        :param mechanism: ``SCRAM-SHA-256``, ``SCRAM-SHA-1``, ``PLAIN``, ``MONGODB-X509``, or ``DEFAULT`` for the better
            SCRAM that the user has.
        :returns: a Deferred that fires with ``True``. It fails with :class:`MongoAuthenticationError` if the mechanism
            is none of these or the server refuses (then it is an :class:`~txmongo.errors.OperationFailure` too), with
            :class:`~txmongo.errors.AutoReconnect` if the connection is lost.
        :raises TypeError: an argument is no str; with MONGODB-X509 name and password may be ``None``.
        """
        try:
            credentials = auth.make_credentials(database_name, username, password, mechanism)
        except (MongoAuthenticationError, ConfigurationError):
            return fail()
        done = Deferred.fromCoroutine(auth.authenticate_user(self, credentials))
        return done.addCallback(lambda _: True)

    def authenticate_mongo_cr(self, database_name: str, username: str, password: str) -> Deferred[bool]:
        """Refused: MONGODB-CR was removed in MongoDB 4.0.

        :param database_name: and the other arguments: see :meth:`authenticate`.
        :returns: a Deferred that fails with :class:`MongoAuthenticationError`; it never fires otherwise.
        """
        return self.authenticate(database_name, username, password, "MONGODB-CR")

    def authenticate_scram_sha1(self, database_name: str, username: str, password: str) -> Deferred[bool]:
        """Authenticate this connection alone, with SCRAM-SHA-1.

        :param database_name: and the other arguments: see :meth:`authenticate`.
        :returns: a Deferred that fires with ``True``, and fails, as that of :meth:`authenticate`.
        """
        return self.authenticate(database_name, username, password, "SCRAM-SHA-1")

    def authenticate_mongo_x509(
        self, database_name: str, username: str | None = None, password: str | None = None
    ) -> Deferred[bool]:
        """Authenticate this connection alone, by the certificate that the client has shown in the TLS handshake.

        :param database_name: and the other arguments: see :meth:`authenticate`.
        :returns: a Deferred that fires with ``True``, and fails, as that of :meth:`authenticate`.
        """
        return self.authenticate(database_name, username, password, "MONGODB-X509")

    def get_last_error(self, db: str, **options: Any) -> Deferred[dict[str, Any]]:
        """How the last write on this connection ended.

        After one of the old opcodes the server is asked (``getLastError``, which MongoDB has up to 5.0). Otherwise it
        is what the last write command of the driver on this connection was answered.

        :param db: a database, or a collection with its database in front.
        :param options: ``w``, ``wtimeout``, ``j``, ``fsync``: what a server that is asked is to wait for.
        :returns: a Deferred that fires with a document with ``err`` (``None``), ``n`` and, after an update,
            ``updatedExisting`` and ``upserted``. It fails with :class:`~txmongo.errors.DuplicateKeyError`,
            :class:`~txmongo.errors.WriteError` or another :class:`~txmongo.errors.OperationFailure` if the write
            failed, with :class:`~txmongo.errors.AutoReconnect` if the connection is lost.
        """
        if self.last_write is not NOT_ANSWERED:
            return execute(last_error, self.last_write)
        # As a query: of what came as an OP_MSG the server keeps no account.
        asked = self.send_op_query_command(db.split(".", 1)[0], {"getLastError": 1, **options})
        return asked.addCallback(check_last_error)
