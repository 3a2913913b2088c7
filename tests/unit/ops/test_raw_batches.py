"""Documents that are not decoded."""

from __future__ import annotations

from typing import Any

from bson import decode, encode
from bson.codec_options import CodecOptions, TypeRegistry
from bson.raw_bson import RawBSONDocument
from twisted.trial.unittest import SynchronousTestCase

from txmongo._ops.raw_batches import joined, undecoded


class RawBatchTests(SynchronousTestCase):
    """What decides that they are not, and what is made of a batch."""

    def test_options(self) -> None:
        """Nothing that belongs to decoding is left to do; the rest of the options stays as it is."""
        registry = TypeRegistry(fallback_encoder=str)
        options: CodecOptions[Any] = CodecOptions(type_registry=registry, tz_aware=True)
        raw = undecoded(options)
        self.assertIs(raw.document_class, RawBSONDocument)
        self.assertEqual((raw.type_registry, raw.tz_aware), (TypeRegistry(), True))
        self.assertIs(options.type_registry, registry)
        self.assertEqual(decode(encode({"_id": 1}), raw).raw, encode({"_id": 1}))

    def test_joined(self) -> None:
        """A batch is one item, its documents in their order; an empty one is no item."""
        documents = [RawBSONDocument(encode({"_id": number})) for number in range(3)]
        self.assertEqual(joined(documents), [encode({"_id": 0}) + encode({"_id": 1}) + encode({"_id": 2})])
        self.assertEqual(joined([]), [])
