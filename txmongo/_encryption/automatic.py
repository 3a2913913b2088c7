"""Automatic encryption: what a client with ``auto_encryption_opts`` has for it, and how that begins and ends.

Client-side encryption specification, "AutoEncryptionOpts". Each operation comes past here by way of
:mod:`txmongo._ops.encrypting`. Beside the client itself there are up to three: that of the key vault, one of the
driver's own that does the same as the application's but for encryption, and one for ``mongocryptd``, the process that
tells what of a command is to be encrypted where libmongocrypt has no library for that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from bson.raw_bson import RawBSONDocument
from twisted.internet.defer import Deferred

from txmongo._encryption.callbacks import Callbacks
from txmongo._encryption.credentials import Credentials
from txmongo._encryption.crypt import Crypt
from txmongo._encryption.key_vault import key_vault_of
from txmongo._encryption.kms import KMSRequests, kms_tls_settings, refuse_connect_callback
from txmongo._encryption.library import crypt_options, encoded_map
from txmongo._encryption.mongocryptd import Mongocryptd, Spawner, spawn_command
from txmongo._encryption.running import Running
from txmongo._pymongo import MongoCredential, auto_encryption_options

if TYPE_CHECKING:
    from txmongo.connection import ConnectionPool

__all__ = ["AutomaticEncryption"]


class AutomaticEncryption:
    """Encrypts the commands of one client, and decrypts the replies to it.

    :param opts: PyMongo's ``AutoEncryptionOpts``.
    :param reactor: makes connections to key management services, and has threads.
    :param kms_timeout: seconds that a request to one may take; ``None`` for no limit.
    :param same_client: makes a client of the same deployment without encryption.
    :param other_client: makes a client by a connection string.
    :ivar encrypts: false if only replies are decrypted.
    :raises ConfigurationError: ``pymongocrypt`` is not installed, or an option cannot be used.
    :raises TypeError: an option has a value of the wrong type.
    :raises ValueError: an option has a value that is not allowed.
    """

    def __init__(
        self,
        opts: Any,
        reactor: Any,
        kms_timeout: float | None,
        same_client: Callable[[], ConnectionPool[Any]],
        other_client: Callable[..., ConnectionPool[Any]],
    ) -> None:
        given = auto_encryption_options(opts)
        _refuse_unsupported(given)
        command = spawn_command(given["mongocryptd_spawn_path"], given["mongocryptd_spawn_args"])
        self.encrypts: bool = not given["bypass_auto_encryption"]
        self._encrypted_fields_map: Mapping[str, Any] | None = given["encrypted_fields_map"]
        self._kms = KMSRequests(reactor, kms_tls_settings(given["kms_tls_options"]), kms_timeout)
        options = _crypt_options(given)
        self._credentials = Credentials(options.kms_providers, reactor)
        self._own_clients: list[ConnectionPool[Any]] = []
        internal = self._internal = (
            self._own(same_client()) if self.encrypts or given["key_vault_client"] is None else None
        )
        key_vault = key_vault_of(
            internal if given["key_vault_client"] is None else given["key_vault_client"], given["key_vault_namespace"]
        )
        self._callbacks = AutomaticCallbacks(key_vault, self._kms, self._credentials, internal)
        self._crypt = Crypt(options, self._callbacks)
        analyses = self.encrypts and not given["bypass_query_analysis"]
        if analyses and not self._crypt.has_shared_library:
            spawner = None if given["mongocryptd_bypass_spawn"] else Spawner(reactor, command)
            mongocryptd = Mongocryptd(given["mongocryptd_uri"], reactor, other_client, spawner)
            self._own(mongocryptd.client)
            self._callbacks.mongocryptd = mongocryptd
        self._running = Running("client")

    def _own(self, client: ConnectionPool[Any]) -> ConnectionPool[Any]:
        self._own_clients.append(client)
        return client

    def set_user(self, database: str, user: MongoCredential | None) -> None:
        """The client was told whom to authenticate as: so is the one that does for it what is not encrypted.

        :param user: ``None`` for the one of the settings, or nobody.
        """
        if self._internal is not None:
            self._internal._parts.set_user(database, user)

    @property
    def knows_encrypted_fields(self) -> bool:
        """Whether the application gave an ``encrypted_fields_map``."""
        return self._encrypted_fields_map is not None

    def encrypted_fields(self, namespace: str) -> Mapping[str, Any] | None:
        """What ``encrypted_fields_map`` says of a collection."""
        found: Mapping[str, Any] | None = (self._encrypted_fields_map or {}).get(namespace)
        return found

    def encrypt(self, database: str, command: bytes) -> Deferred[bytes]:
        """Encrypt a command.

        :returns: a Deferred that fires with what is to be sent in its place. It fails with
            :class:`~txmongo.errors.EncryptionError`, or :class:`~txmongo.errors.InvalidOperation` if this is closed.
        """
        return self._running.run(self._crypt.encrypt_command(database, command))

    def decrypt(self, reply: bytes) -> Deferred[bytes]:
        """Decrypt a reply.

        :returns: a Deferred that fires with what it means, and fails as that of :meth:`encrypt`.
        """
        return self._running.run(self._crypt.decrypt_reply(reply))

    def close(self) -> Deferred[None]:
        """End all of it; what is in progress fails.

        :returns: a Deferred that fires with ``None`` when the driver's own clients are disconnected and no connection
            to a key management service is left. It never fails; it may be asked for more than once.
        """
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        await self._running.close()
        self._crypt.close()
        for client in self._own_clients:
            await client.disconnect()
        await self._kms.drained()
        await self._credentials.drained()


class AutomaticCallbacks(Callbacks):
    """What libmongocrypt asks for beyond explicit encryption: what the server knows of a collection, and analysis.

    :ivar mongocryptd: analyses commands; ``None`` if none is needed.
    """

    mongocryptd: Mongocryptd | None = None

    def __init__(
        self, key_vault: Any, kms: KMSRequests, credentials: Credentials, metadata: ConnectionPool[Any] | None
    ) -> None:
        super().__init__(key_vault, kms, credentials)
        self._metadata = metadata

    async def collection_info(self, database: str, filter: bytes) -> list[bytes]:
        """What the server says of collections: their JSON schema, or their encrypted fields."""
        assert self._metadata is not None
        found = await self._metadata[database].list_collections(filter=RawBSONDocument(filter))
        return [self.bson_encode(each) for each in found]

    async def mark_command(self, database: str, cmd: bytes) -> bytes:
        """Have what is to be encrypted in a command marked.

        :raises ServerSelectionTimeoutError: mongocryptd is not there.
        """
        assert self.mongocryptd is not None
        return await self.mongocryptd.mark(database, cmd)


def _refuse_unsupported(given: Mapping[str, Any]) -> None:
    refuse_connect_callback(given["kms_connect_callback"])
    path = given["crypt_shared_lib_path"]
    if path is not None and not isinstance(path, str):
        raise TypeError(f"crypt_shared_lib_path must be a str, not {type(path).__name__}")


def _crypt_options(given: Mapping[str, Any]) -> Any:
    return crypt_options(
        given["kms_providers"],
        schema_map=encoded_map("schema_map", given["schema_map"]),
        encrypted_fields_map=encoded_map("encrypted_fields_map", given["encrypted_fields_map"]),
        bypass_query_analysis=given["bypass_query_analysis"],
        crypt_shared_lib_path=given["crypt_shared_lib_path"],
        crypt_shared_lib_required=given["crypt_shared_lib_required"],
        bypass_encryption=given["bypass_auto_encryption"],
        key_expiration_ms=given["key_expiration_ms"],
        enable_multiple_collinfo=True,
    )
