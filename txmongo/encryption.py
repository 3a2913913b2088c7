"""Client-side encryption: values that only who has the key can read, not the server that keeps them.

:class:`ClientEncryption` makes data keys and encrypts and decrypts single values; names and arguments are those of
PyMongo's ``AsyncClientEncryption``. It needs the extra ``encryption``: ``pip install 'txmongo[encryption]'``. Kept is
the client-side encryption specification; what is encrypted how is libmongocrypt's to know.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from copy import deepcopy
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self

import bson
from bson.binary import UUID_SUBTYPE, Binary
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo.encryption import Algorithm, QueryType, RewrapManyDataKeyResult  # type: ignore[attr-defined]
from pymongo.encryption_options import AutoEncryptionOpts, RangeOpts
from pymongo.operations import UpdateOne
from pymongo.results import DeleteResult
from twisted.internet.defer import CancelledError, Deferred

from txmongo._encryption.callbacks import Callbacks
from txmongo._encryption.credentials import Credentials
from txmongo._encryption.crypt import Crypt
from txmongo._encryption.key_vault import RAW, key_vault_of
from txmongo._encryption.kms import KMSRequests, kms_tls_settings, refuse_connect_callback
from txmongo._encryption.library import crypt_options, takes_string_opts
from txmongo._encryption.running import Running
from txmongo._ops.arguments import check_mapping
from txmongo._ops.timeouts import check_milliseconds
from txmongo.database import Database
from txmongo.errors import ConfigurationError, EncryptedCollectionError
from txmongo.types import DocumentType

if TYPE_CHECKING:
    from txmongo.collection import Collection
    from txmongo.connection import ConnectionPool
    from txmongo.cursor import Cursor

__all__ = ["Algorithm", "AutoEncryptionOpts", "ClientEncryption", "QueryType", "RangeOpts", "RewrapManyDataKeyResult"]

_CIPHERTEXT_SUBTYPE = 6


class ClientEncryption(Generic[DocumentType]):
    """Makes and keeps data keys, and encrypts and decrypts values with them.

    ::

        async with ClientEncryption(
            {"local": {"key": master_key}}, "encryption.keys", client, client.codec_options
        ) as encryption:
            key_id = await encryption.create_data_key("local")
            secret = await encryption.encrypt("4711", Algorithm.AEAD_AES_256_CBC_HMAC_SHA_512_Random, key_id)
            await client.shop.customers.insert_one({"name": "Ada", "card": secret})

    Data keys are stored in a collection, the key vault, each encrypted by a key management service, which is asked for
    it over TLS, or by a key that the application has itself (``local``). Nothing here blocks the reactor but the
    encryption itself.

    Every Deferred here fails with :class:`~txmongo.errors.EncryptionError` if libmongocrypt refuses, the key vault or
    the service cannot be reached or says no, or if it is not done in time: its ``cause`` is that error. It fails with
    an error of ``bson`` if a value cannot be encoded or decoded, with ``CancelledError`` if it is cancelled, and with
    :class:`~txmongo.errors.InvalidOperation` if this object is closed meanwhile. Methods of an object that is closed
    raise :class:`~txmongo.errors.InvalidOperation`.

    :param kms_providers: the credentials for each key management service that is used: ``{"local": {"key": ...}}`` with
        96 bytes; ``aws`` with ``accessKeyId`` and ``secretAccessKey``, if need be ``sessionToken``; ``azure`` with
        ``tenantId``, ``clientId`` and ``clientSecret``; ``gcp`` with ``email`` and ``privateKey``; ``kmip`` with
        ``endpoint``. A name may follow, as in ``"aws:archive"``. For ``aws``, ``azure`` and ``gcp`` an empty map has
        credentials looked for when they are needed: see :doc:`/encryption`.
    :param key_vault_namespace: the key vault, as ``"database.collection"``.
    :param key_vault_client: the :class:`~txmongo.connection.ConnectionPool` that leads to it. It is the application's
        to disconnect.
    :param codec_options: how the values are encoded and decoded, as a rule those of the client.
    :param kms_tls_options: TLS options by the provider's name: ``{"kmip": {"tlsCAFile": ...}}``; without, the
        service's certificate is verified by the authorities that the system trusts.
    :param key_expiration_ms: milliseconds for which a data key is remembered after it was fetched; 0 for always, one
        minute without.
    :param kms_connect_callback: PyMongo's, which cannot be used here.
    :param timeout_ms: milliseconds that each operation may last, with all that it has to fetch; 0 for no limit. It is
        the ``timeoutMS`` of the key vault's client, if that has one, where it is not given.
    :raises ConfigurationError: ``pymongocrypt`` is not installed, or an option cannot be used.
    :raises TypeError: an argument has a value of the wrong type.
    :raises ValueError: an argument has a value that is not allowed.
    """

    def __init__(
        self,
        kms_providers: Mapping[str, Any],
        key_vault_namespace: str,
        key_vault_client: ConnectionPool[Any],
        codec_options: CodecOptions[DocumentType],
        kms_tls_options: Mapping[str, Any] | None = None,
        key_expiration_ms: int | None = None,
        kms_connect_callback: None = None,
        *,
        timeout_ms: float | None = None,
    ) -> None:
        refuse_connect_callback(kms_connect_callback)
        if not isinstance(codec_options, CodecOptions):
            raise TypeError(f"codec_options must be an instance of CodecOptions, not {type(codec_options).__name__}")
        self._codec_options: CodecOptions[Any] = codec_options
        check_milliseconds("timeout_ms", timeout_ms)
        self._key_vault = key_vault_of(key_vault_client, key_vault_namespace, timeout_ms)
        reactor, timeout = key_vault_client._reactor, key_vault_client.options.connect_timeout
        self._kms = KMSRequests(reactor, kms_tls_settings(kms_tls_options), timeout)
        options = crypt_options(kms_providers, key_expiration_ms=key_expiration_ms)
        self._credentials = Credentials(options.kms_providers, reactor)
        self._crypt = Crypt(options, Callbacks(self._key_vault, self._kms, self._credentials))
        milliseconds = self._key_vault.timeout_ms
        self._running = Running("ClientEncryption", reactor, milliseconds and milliseconds / 1000)

    def __repr__(self) -> str:
        return f"<ClientEncryption: {self._key_vault.full_name}>"

    # --- data keys ---

    def create_data_key(
        self,
        kms_provider: str,
        master_key: Mapping[str, Any] | None = None,
        key_alt_names: Sequence[str] | None = None,
        key_material: bytes | None = None,
    ) -> Deferred[Binary]:
        """Make a new data key and put it into the key vault.

        :param kms_provider: whose master key encrypts it: ``"local"``, ``"aws"``, ``"kmip:name"``...
        :param master_key: which of the service's keys: for ``aws`` ``region`` and ``key``, for ``azure``
            ``keyVaultEndpoint`` and ``keyName``, for ``gcp`` ``projectId``, ``location``, ``keyRing`` and ``keyName``,
            for ``kmip`` perhaps ``keyId`` or ``delegated``; nothing for ``local``.
        :param key_alt_names: names by which it can be called instead of by its id.
        :param key_material: the 96 bytes of the key; random ones if it is not given.
        :returns: a Deferred that fires with the key's ``_id``, a ``Binary`` of subtype 4. It fails as the class says;
            if a name is taken, and the key vault has an index for that, the ``cause`` is a
            :class:`~txmongo.errors.DuplicateKeyError`.
        :raises TypeError: an argument is not of its type.
        """
        self._running.check_open()
        _check_type("kms_provider", kms_provider, str)
        if master_key is not None:
            check_mapping("master_key", master_key)
        names = () if key_alt_names is None else _names(key_alt_names)
        if key_material is not None:
            _check_type("key_material", key_material, bytes)
        return self._running.run(self._crypt.create_data_key(kms_provider, master_key, names, key_material))

    def get_key(self, id: Binary | uuid.UUID) -> Deferred[RawBSONDocument | None]:
        """A data key as the key vault has it, encrypted.

        :param id: its ``_id``.
        :returns: a Deferred that fires with a :class:`~bson.raw_bson.RawBSONDocument`, with ``None`` if there is no
            such key. It fails as every operation (see :class:`~txmongo.collection.Collection`).
        :raises TypeError: it is no id.
        """
        self._running.check_open()
        return self._key_vault.find_one({"_id": _key_id("id", id)})

    def get_key_by_alt_name(self, key_alt_name: str) -> Deferred[RawBSONDocument | None]:
        """A data key by one of its names.

        :param key_alt_name: the name.
        :returns: a Deferred that fires, and fails, as that of :meth:`get_key`.
        :raises TypeError: it is no str.
        """
        self._running.check_open()
        _check_type("key_alt_name", key_alt_name, str)
        return self._key_vault.find_one({"keyAltNames": key_alt_name})

    def get_keys(self) -> Cursor[RawBSONDocument]:
        """All data keys.

        :returns: a :class:`~txmongo.cursor.Cursor` over :class:`~bson.raw_bson.RawBSONDocument` objects. It fails as
            every operation (see :class:`~txmongo.collection.Collection`).
        """
        self._running.check_open()
        return self._key_vault.find({})

    def delete_key(self, id: Binary | uuid.UUID) -> Deferred[DeleteResult]:
        """Remove a data key. What was encrypted with it can never be read again.

        :param id: its ``_id``.
        :returns: a Deferred that fires with a :class:`~pymongo.results.DeleteResult`. It fails as every operation (see
            :class:`~txmongo.collection.Collection`).
        :raises TypeError: it is no id.
        """
        self._running.check_open()
        return self._key_vault.delete_one({"_id": _key_id("id", id)})

    def add_key_alt_name(self, id: Binary | uuid.UUID, key_alt_name: str) -> Deferred[RawBSONDocument | None]:
        """Give a data key one more name.

        :param id: its ``_id``.
        :param key_alt_name: the name.
        :returns: a Deferred that fires with the key as it was before, ``None`` if there is no such key. It fails with
            :class:`~txmongo.errors.DuplicateKeyError` if another key has the name, and the key vault an index for that,
            and as every operation (see :class:`~txmongo.collection.Collection`).
        :raises TypeError: an argument is not of its type.
        """
        self._running.check_open()
        _check_type("key_alt_name", key_alt_name, str)
        update = {"$addToSet": {"keyAltNames": key_alt_name}}
        return self._key_vault.find_one_and_update({"_id": _key_id("id", id)}, update)

    def remove_key_alt_name(self, id: Binary | uuid.UUID, key_alt_name: str) -> Deferred[RawBSONDocument | None]:
        """Take a name from a data key.

        :param id: its ``_id``.
        :param key_alt_name: the name.
        :returns: a Deferred that fires with the key as it was before, ``None`` if there is no such key. It fails as
            every operation (see :class:`~txmongo.collection.Collection`).
        :raises TypeError: an argument is not of its type.
        """
        self._running.check_open()
        _check_type("key_alt_name", key_alt_name, str)
        # A key without a name must not have an empty list of them either: the index on names would hold it for one.
        name: Any = {"$literal": key_alt_name} if key_alt_name.startswith("$") else key_alt_name
        others = {"$filter": {"input": "$keyAltNames", "cond": {"$ne": ["$$this", name]}}}
        is_last = {"$eq": ["$keyAltNames", [name]]}
        update = [{"$set": {"keyAltNames": {"$cond": [is_last, "$$REMOVE", others]}}}]
        return self._key_vault.find_one_and_update({"_id": _key_id("id", id)}, update)

    def rewrap_many_data_key(
        self, filter: Mapping[str, Any], provider: str | None = None, master_key: Mapping[str, Any] | None = None
    ) -> Deferred[RewrapManyDataKeyResult]:
        """Encrypt data keys anew, with the current or with another master key. What they encrypt stays as it is.

        :param filter: which data keys of the key vault.
        :param provider: the service whose master key is to encrypt them; each key's own if it is not given.
        :param master_key: which of that service's keys, as of :meth:`create_data_key`.
        :returns: a Deferred that fires with a :class:`~pymongo.encryption.RewrapManyDataKeyResult`, whose
            ``bulk_write_result`` is ``None`` if no key matches. It fails as the class says.
        :raises TypeError: an argument is not of its type.
        :raises ConfigurationError: ``master_key`` was given without ``provider``.
        """
        self._running.check_open()
        check_mapping("filter", filter)
        if provider is not None:
            _check_type("provider", provider, str)
        if master_key is not None:
            check_mapping("master_key", master_key)
            if provider is None:
                raise ConfigurationError("master_key: whose it is has to be said, by provider")
        return self._running.run(self._rewrap(filter, provider, master_key))

    async def _rewrap(
        self, filter: Mapping[str, Any], provider: str | None, master_key: Mapping[str, Any] | None
    ) -> RewrapManyDataKeyResult:
        wrapped = await self._crypt.rewrap(filter, provider, master_key)
        if wrapped is None:
            return RewrapManyDataKeyResult()
        updates = [
            UpdateOne(
                {"_id": key["_id"]},
                {
                    "$set": {"keyMaterial": key["keyMaterial"], "masterKey": key["masterKey"]},
                    "$currentDate": {"updateDate": True},
                },
            )
            for key in RawBSONDocument(wrapped)["v"]
        ]
        if not updates:
            return RewrapManyDataKeyResult()
        return RewrapManyDataKeyResult(await self._key_vault.bulk_write(updates))

    # --- values ---

    def encrypt(
        self,
        value: Any,
        algorithm: str,
        key_id: Binary | uuid.UUID | None = None,
        key_alt_name: str | None = None,
        query_type: str | None = None,
        contention_factor: int | None = None,
        range_opts: RangeOpts | None = None,
        string_opts: Any = None,
    ) -> Deferred[Binary]:
        """Encrypt a value.

        :param value: anything that BSON knows.
        :param algorithm: an :class:`~pymongo.encryption.Algorithm`.
        :param key_id: the ``_id`` of the data key; or else
        :param key_alt_name: one of its names.
        :param query_type: the :class:`~pymongo.encryption.QueryType` if the value is to be searched for with
            ``Algorithm.INDEXED`` and its like (Queryable Encryption).
        :param contention_factor: how many variants of the value there are, which Queryable Encryption wants to be told.
        :param range_opts: for ``Algorithm.RANGE``: a :class:`~pymongo.encryption_options.RangeOpts`.
        :param string_opts: for ``Algorithm.STRING``: PyMongo's ``StringOpts``, which the latest versions have.
        :returns: a Deferred that fires with a ``Binary`` of subtype 6. It fails as the class says.
        :raises TypeError: an argument is not of its type.
        :raises ConfigurationError: neither or both of ``key_id`` and ``key_alt_name`` were given.
        """
        self._running.check_open()
        options = _encrypt_options(
            algorithm, key_id, key_alt_name, query_type, contention_factor, range_opts, string_opts
        )
        return self._running.run(self._encrypt(value, options))

    async def _encrypt(self, value: Any, options: dict[str, Any]) -> Binary:
        plain = bson.encode({"v": value}, codec_options=self._codec_options)
        encrypted = await self._crypt.encrypt_value(plain, **options)
        secret: Binary = RawBSONDocument(encrypted)["v"]
        return secret

    def encrypt_expression(
        self,
        expression: Mapping[str, Any],
        algorithm: str,
        key_id: Binary | uuid.UUID | None = None,
        key_alt_name: str | None = None,
        query_type: str | None = None,
        contention_factor: int | None = None,
        range_opts: RangeOpts | None = None,
    ) -> Deferred[RawBSONDocument]:
        """Encrypt the values in a condition on a range: Queryable Encryption from MongoDB 8.0 on.

        :param expression: a match such as ``{"$and": [{"age": {"$gte": 7}}, {"age": {"$lt": 20}}]}``, or one of an
            aggregation.
        :param algorithm: and the other arguments: see :meth:`encrypt`.
        :returns: a Deferred that fires with the condition to ask with, a :class:`~bson.raw_bson.RawBSONDocument`. It
            fails as the class says.
        :raises TypeError: an argument is not of its type.
        :raises ConfigurationError: neither or both of ``key_id`` and ``key_alt_name`` were given.
        """
        self._running.check_open()
        check_mapping("expression", expression)
        options = _encrypt_options(algorithm, key_id, key_alt_name, query_type, contention_factor, range_opts, None)
        return self._running.run(self._encrypt_expression(expression, options))

    async def _encrypt_expression(self, expression: Mapping[str, Any], options: dict[str, Any]) -> RawBSONDocument:
        plain = bson.encode({"v": expression}, codec_options=self._codec_options)
        encrypted = await self._crypt.encrypt_value(plain, is_expression=True, **options)
        condition: RawBSONDocument = bson.decode(encrypted, RAW)["v"]
        return condition

    def decrypt(self, value: Binary) -> Deferred[Any]:
        """Decrypt a value; with which key is said in it.

        :param value: what :meth:`encrypt` made: a ``Binary`` of subtype 6.
        :returns: a Deferred that fires with the value. It fails as the class says.
        :raises TypeError: it is nothing that was encrypted.
        """
        self._running.check_open()
        if not isinstance(value, Binary) or value.subtype != _CIPHERTEXT_SUBTYPE:
            raise TypeError("value must be a Binary of subtype 6")
        return self._running.run(self._decrypt(value))

    async def _decrypt(self, value: Binary) -> Any:
        decrypted = await self._crypt.decrypt_value(bson.encode({"v": value}))
        return bson.decode(decrypted, self._codec_options)["v"]

    # --- collections ---

    def create_encrypted_collection(
        self,
        database: Database[DocumentType],
        name: str,
        encrypted_fields: Mapping[str, Any],
        kms_provider: str | None = None,
        master_key: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Deferred[tuple[Collection[DocumentType], Mapping[str, Any]]]:
        """Create a collection for Queryable Encryption, and data keys for its fields. It needs MongoDB 7.0.

        Clients with automatic encryption that exist already learn nothing of it; one that is to encrypt these fields is
        made afterwards, with what this fires with in its ``encrypted_fields_map``.

        :param database: where.
        :param name: its name.
        :param encrypted_fields: which fields are encrypted, as in ``{"fields": [{"path": "card", "bsonType": "string",
            "keyId": None}]}``; for each whose ``keyId`` is ``None`` a data key is made.
        :param kms_provider: for these keys, as of :meth:`create_data_key`, and so is ``master_key``.
        :param kwargs: as of :meth:`Database.create_collection() <txmongo.database.Database.create_collection>`.
        :returns: a Deferred that fires with the :class:`~txmongo.collection.Collection` and ``encrypted_fields`` with
            all ids. It fails with :class:`~txmongo.errors.EncryptedCollectionError` if a key could not be made or the
            collection not be created: its ``cause`` says why, its ``encrypted_fields`` which keys were made. It is
            cancelled, and fails when this is closed, as the class says.
        :raises TypeError: an argument is not of its type.
        """
        self._running.check_open()
        if not isinstance(database, Database):
            raise TypeError(f"database must be a Database, not {type(database).__name__}")
        _check_type("name", name, str)
        check_mapping("encrypted_fields", encrypted_fields)
        if kms_provider is not None:
            _check_type("kms_provider", kms_provider, str)
        if master_key is not None:
            check_mapping("master_key", master_key)
        fields = deepcopy(dict(encrypted_fields))
        create = self._create_encrypted(database, name, fields, kms_provider, master_key, kwargs)
        return self._running.run(create, lambda error: EncryptedCollectionError(error, fields))

    async def _create_encrypted(
        self,
        database: Database[DocumentType],
        name: str,
        encrypted_fields: dict[str, Any],
        kms_provider: str | None,
        master_key: Mapping[str, Any] | None,
        options: dict[str, Any],
    ) -> tuple[Collection[DocumentType], Mapping[str, Any]]:
        try:
            fields = encrypted_fields.get("fields")
            for field in fields if isinstance(fields, list | tuple) else ():
                # What else may be wrong is the server's to say.
                if isinstance(field, dict) and field.get("keyId", "given") is None:
                    if kms_provider is None:
                        raise ConfigurationError("kms_provider: a data key has to be made, and whose it is be said")
                    field["keyId"] = await self._crypt.create_data_key(kms_provider, master_key)
            collection = await database.create_collection(name, encryptedFields=encrypted_fields, **options)
        except CancelledError:
            raise
        except Exception as error:
            raise EncryptedCollectionError(error, encrypted_fields) from error
        return collection, encrypted_fields

    # --- life ---

    async def __aenter__(self) -> Self:
        """``async with ClientEncryption(...) as encryption``: closed at the end of the block."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def close(self) -> Deferred[None]:
        """Forget all keys. What is in progress fails with :class:`~txmongo.errors.InvalidOperation`.

        The key vault's client stays connected.

        :returns: a Deferred that fires with ``None`` when no connection to a key management service is left. It never
            fails; it may be asked for more than once.
        """
        return self._running.close().addCallback(self._ended)

    def _ended(self, _: None) -> Deferred[None]:
        self._crypt.close()
        return self._kms.drained().addCallback(lambda _: self._credentials.drained())


def _check_type(name: str, value: Any, kind: type[Any]) -> None:
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be a {kind.__name__}, not {type(value).__name__}")


def _names(key_alt_names: Any) -> list[str]:
    if isinstance(key_alt_names, str) or not isinstance(key_alt_names, Sequence):
        raise TypeError(f"key_alt_names must be a list of str, not {type(key_alt_names).__name__}")
    for name in key_alt_names:
        _check_type("each of key_alt_names", name, str)
    return list(key_alt_names)


def _key_id(name: str, value: Any) -> Binary:
    """The id of a data key.

    :raises TypeError: it is none.
    """
    if isinstance(value, uuid.UUID):
        return Binary.from_uuid(value)
    if not isinstance(value, Binary) or value.subtype != UUID_SUBTYPE:
        raise TypeError(f"{name} must be a Binary of subtype 4 or a UUID")
    return value


def _encrypt_options(
    algorithm: Any,
    key_id: Any,
    key_alt_name: Any,
    query_type: Any,
    contention_factor: Any,
    range_opts: Any,
    string_opts: Any,
) -> dict[str, Any]:
    """The arguments of pymongocrypt's ``encrypt``, checked."""
    _check_type("algorithm", algorithm, str)
    if (key_id is None) == (key_alt_name is None):
        raise ConfigurationError("either key_id or key_alt_name must be given, not both")
    if key_alt_name is not None:
        _check_type("key_alt_name", key_alt_name, str)
    if query_type is not None:
        _check_type("query_type", query_type, str)
    if contention_factor is not None:
        _check_type("contention_factor", contention_factor, int)
    options = {
        "algorithm": algorithm,
        "key_id": None if key_id is None else _key_id("key_id", key_id),
        "key_alt_name": key_alt_name,
        "query_type": query_type,
        "contention_factor": contention_factor,
        "range_opts": None if range_opts is None else _encoded_options("range_opts", range_opts, "RangeOpts"),
    }
    if string_opts is not None:
        if not takes_string_opts():
            raise ConfigurationError("string_opts: this pymongocrypt is too old for it, 1.19 is needed")
        options["string_opts"] = _encoded_options("string_opts", string_opts, "StringOpts")
    return options


def _encoded_options(name: str, value: Any, kind: str) -> bytes:
    if not isinstance(getattr(value, "document", None), Mapping):
        raise TypeError(f"{name} must be a {kind}, not {type(value).__name__}")
    return bson.encode(value.document)
