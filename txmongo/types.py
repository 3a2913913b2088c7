"""Names for the shapes of data that go in and out of the driver.

Only type aliases live here; nothing has behaviour.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any, TypeVar

from bson.raw_bson import RawBSONDocument

__all__ = ["Address", "Document", "DocumentIn", "DocumentType", "IndexKeys", "Pipeline"]

Address = tuple[str, "int | None"]
"""Host and port of a server; the port is ``None`` for the path of a UNIX socket, as in PyMongo."""

Document = Mapping[str, Any]
"""A document that the driver only reads: a filter, a command, a reply."""

DocumentIn = MutableMapping[str, Any] | RawBSONDocument
"""A document to be stored; a mutable one without ``_id`` is given one."""

DocumentType = TypeVar("DocumentType", bound=Mapping[str, Any])
"""The type that documents are decoded to: ``codec_options.document_class``."""

Pipeline = Sequence[Mapping[str, Any]]
"""The stages of an aggregation."""

IndexKeys = str | Sequence["str | tuple[str, Any]"] | Mapping[str, Any]
"""One key, or several with their directions, as ``create_index`` and ``hint`` take them."""
