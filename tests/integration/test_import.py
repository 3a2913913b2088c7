"""What importing the driver does to a process: as little as can be."""

from __future__ import annotations

import os
import sys

from twisted.internet import utils
from twisted.trial.unittest import TestCase

MODULES = "txmongo, txmongo.testing"


class ImportTests(TestCase):
    """A process that imports everything public."""

    timeout = 60

    async def run_python(self, program: str) -> str:
        """What a program prints, errors included."""
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        output, errors, _ = await utils.getProcessOutputAndValue(sys.executable, ("-c", program), environment)
        return (output + errors).decode()

    async def test_reactor(self) -> None:
        """Importing installs no reactor, so that the application can choose its own."""
        program = f"import sys, {MODULES}; print('twisted.internet.reactor' in sys.modules)"
        self.assertEqual(await self.run_python(program), "False\n")

    async def test_asyncio(self) -> None:
        """No module of ours brings asyncio in beside what PyMongo imports itself."""
        program = (
            "import sys, pymongo, pymongo.asynchronous.auth, twisted.internet.endpoints, twisted.internet.ssl\n"
            f"before = set(sys.modules)\nimport {MODULES}\n"
            "print(sorted(name for name in set(sys.modules) - before if name.startswith('asyncio')))"
        )
        self.assertEqual(await self.run_python(program), "[]\n")

    async def test_submodules(self) -> None:
        """``import txmongo`` makes the modules of the driver reachable."""
        program = "import txmongo; print(txmongo.connection.ConnectionPool is txmongo.ConnectionPool)"
        self.assertEqual(await self.run_python(program), "True\n")
