"""The servers of the compatibility tests are what they say."""

from __future__ import annotations

from tests.compat.servers import CompatTestCase, on_every_server, on_old_servers


@on_every_server
class VersionTests(CompatTestCase):
    """A case on every server."""

    async def test_version(self) -> None:
        """The server is of the version that the case names."""
        version = (await self.client.server_info())["version"]
        if self.server_version is None:
            self.assertGreaterEqual(int(version.partition(".")[0]), 6)
        else:
            self.assertTrue(version.startswith(f"{self.server_version}."), version)


@on_old_servers
class OldVersionTests(CompatTestCase):
    """A case on the older servers alone."""

    async def test_old(self) -> None:
        """Today's server is left out."""
        version = (await self.client.server_info())["version"]
        self.assertTrue(version.startswith(("4.4.", "5.0.")), version)


@on_every_server
class SetVersionTests(CompatTestCase):
    """A case on a replica set."""

    on_replica_set = True

    async def test_set(self) -> None:
        """The server is a member of a set."""
        self.assertIn("setName", await self.client.admin.command("hello"))
