"""All scripts by name, and how one is run."""

from __future__ import annotations

from typing import Any

from drivers import filling, memory, operations, specification
from drivers.driver import Driver

_MODULES = (filling, memory, operations, specification)
SCRIPTS = {name: getattr(module, name) for module in _MODULES for name in module.__all__}


async def run(driver: Driver, request: dict[str, Any]) -> dict[str, Any]:
    """Run the script that the parent asks for and return what it has measured."""
    measured: dict[str, Any] = await SCRIPTS[request["script"]](driver, request)
    return measured
