"""What libmongocrypt does for one client: its state machine, driven from one need of it to the next.

Client-side encryption specification, "Integrating with libmongocrypt". That library says what it needs, the callbacks
see to it, and in the end it gives what was asked for. ``pymongocrypt`` has such a machine too; that one asks for
credentials in ways that cannot be awaited under Twisted.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

import bson

from txmongo._encryption.library import library_object, part_of_library

__all__ = ["Crypt"]

_STATE = "MONGOCRYPT_CTX_"


class Crypt:
    """An object of libmongocrypt. Each of its methods fails with whatever the callbacks fail with, too.

    :param options: as :func:`~txmongo._encryption.library.crypt_options` makes them.
    :param callbacks: see to what it needs: :class:`~txmongo._encryption.callbacks.Callbacks`.
    :raises ConfigurationError: libmongocrypt does not take the options.
    """

    def __init__(self, options: Any, callbacks: Any) -> None:
        self._callbacks = callbacks
        self._options = part_of_library("options")
        self._library = library_object(options, callbacks)
        states = part_of_library("binding").lib
        self._done = getattr(states, f"{_STATE}DONE")
        self._needs = {getattr(states, f"{_STATE}{name}"): need for name, need in _NEEDS.items()}
        self._refusal: type[Exception] = part_of_library("errors").MongoCryptError

    @property
    def has_shared_library(self) -> bool:
        """Whether the ``crypt_shared`` library is loaded."""
        return self._library.crypt_shared_lib_version is not None

    def close(self) -> None:
        """Forget everything. Nothing may be in progress, and nothing be begun any more."""
        self._library.close()

    # --- what it does; all in BSON ---

    async def encrypt_command(self, database: str, command: bytes) -> bytes:
        """A command in which is encrypted what is to be."""
        return await self._result(self._library.encryption_context(database, command))

    async def decrypt_reply(self, reply: bytes) -> bytes:
        """A reply in which everything is decrypted."""
        return await self._result(self._library.decryption_context(reply))

    async def encrypt_value(
        self, document: bytes, algorithm: str, key_id: bytes | None, key_alt_name: str | None, **options: Any
    ) -> bytes:
        """The value ``v`` of a document, encrypted.

        :param options: of pymongocrypt's ``ExplicitEncryptOpts``.
        """
        name = None if key_alt_name is None else bson.encode({"keyAltName": key_alt_name})
        how = self._options.ExplicitEncryptOpts(algorithm, key_id, name, **options)
        return await self._result(self._library.explicit_encryption_context(document, how))

    async def decrypt_value(self, document: bytes) -> bytes:
        """The value ``v`` of a document, decrypted."""
        return await self._result(self._library.explicit_decryption_context(document))

    async def create_data_key(
        self,
        kms_provider: str,
        master_key: Mapping[str, Any] | None,
        key_alt_names: Sequence[str] = (),
        key_material: bytes | None = None,
    ) -> Any:
        """The ``_id`` of a data key that was made and put into the key vault."""
        how = self._options.DataKeyOpts(
            None if master_key is None else dict(master_key),
            [bson.encode({"keyAltName": name}) for name in key_alt_names],
            None if key_material is None else bson.encode({"keyMaterial": key_material}),
        )
        key = await self._result(self._library.data_key_context(kms_provider, how))
        return await self._callbacks.insert_data_key(key)

    async def rewrap(
        self, filter: Mapping[str, Any], provider: str | None, master_key: Mapping[str, Any] | None
    ) -> bytes | None:
        """The data keys that match, encrypted anew, as the list ``v`` of a document; ``None`` if there are none."""
        return await self._run(self._library.rewrap_many_data_key_context(filter, provider, master_key))

    # --- how ---

    async def _result(self, context: Any) -> bytes:
        """What one piece of work comes to."""
        result = await self._run(context)
        assert result is not None
        return result

    async def _run(self, context: Any) -> bytes | None:
        """Do one piece of work; ``None`` if there was none."""
        work = _Work(context, self._callbacks)
        with context:
            try:
                while (need := self._needs.get(context.state)) is not None:
                    await need(work)
                return None if context.state == self._done else work.result()
            except self._refusal as error:
                raise work.explained(error) from None


class _Work:
    """One piece of work, and what it needs on its way."""

    def __init__(self, context: Any, callbacks: Any) -> None:
        self._context = context
        self._callbacks = callbacks
        #: Why there are no credentials for a provider.
        self._missing: Mapping[str, Exception] = {}

    def result(self) -> bytes:
        """What it has come to; raises why it has not."""
        result: bytes = self._context.finish()
        return result

    def explained(self, error: Exception) -> Exception:
        """What to raise for an error of libmongocrypt.

        That does not know why there are no credentials, and repeats whatever a service has answered.
        """
        text = str(error)
        for provider, why in self._missing.items():
            if f"`{provider}` is not configured" in text:
                return why
        shown = self._callbacks.hide(text)
        return error if shown == text else type(error)(shown, getattr(error, "code", -1))

    async def collection_info(self) -> None:
        context = self._context
        for each in await self._callbacks.collection_info(context.database, context.mongo_operation()):
            context.add_mongo_operation_result(each)
        context.complete_mongo_operation()

    async def markings(self) -> None:
        context = self._context
        context.add_mongo_operation_result(
            await self._callbacks.mark_command(context.database, context.mongo_operation())
        )
        context.complete_mongo_operation()

    async def data_keys(self) -> None:
        context = self._context
        for each in await self._callbacks.data_keys(context.mongo_operation()):
            context.add_mongo_operation_result(each)
        context.complete_mongo_operation()

    async def kms(self) -> None:
        for request in self._context.kms_contexts():
            with request:
                await self._callbacks.kms_request(request)
        self._context.complete_kms()

    async def credentials(self) -> None:
        found, self._missing = await self._callbacks.credentials()
        self._context.provide_kms_providers(bson.encode(found))


_NEEDS: Mapping[str, Callable[[_Work], Coroutine[Any, Any, None]]] = {
    "NEED_MONGO_COLLINFO": _Work.collection_info,
    "NEED_MONGO_MARKINGS": _Work.markings,
    "NEED_MONGO_KEYS": _Work.data_keys,
    "NEED_KMS": _Work.kms,
    "NEED_KMS_CREDENTIALS": _Work.credentials,
}
