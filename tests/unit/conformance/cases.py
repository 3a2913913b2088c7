"""Makes cases for the tests of what reads cases."""

from __future__ import annotations

from typing import Any

from tests.conformance.loader import Case


def make_case(
    test: dict[str, Any] | None = None, *, key: tuple[str, str, str] = ("suite", "file", "it"), **document: Any
) -> Case:
    """A case with a test and the rest of its file."""
    test = {"description": key[2], "operations": [], **(test or {})}
    return Case(*key, test, {"schemaVersion": "1.0", "tests": [test], **document})
