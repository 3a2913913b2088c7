"""Documents that are not decoded: those of raw batches, handed out as they came, and those that are decoded later."""

from __future__ import annotations

from typing import Any

from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument

__all__ = ["joined", "undecoded"]


def undecoded(codec_options: CodecOptions[Any]) -> CodecOptions[RawBSONDocument]:
    """Options like these by which documents stay undecoded."""
    return codec_options.with_options(document_class=RawBSONDocument, type_registry=None)


def joined(documents: list[RawBSONDocument]) -> list[bytes]:
    """The batch as the one item that it is: its documents one after another; an empty batch is none."""
    return [b"".join(document.raw for document in documents)] if documents else []
