"""The code in the README and in the guide, run as it stands there.

A page's ``python`` blocks run one after another in one namespace, as if typed into one program. A ``text`` block that
follows is what the block before it prints (``...`` stands for anything). Blocks that are whole programs, or test cases,
run in processes of their own. The servers that the pages name are throw-away ones, and so are the certificates.
"""

from __future__ import annotations

import ast
import doctest
import io
import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import attrs
from twisted.internet import reactor, utils
from twisted.trial.unittest import TestCase

import txmongo
from txmongo.testing import CertificateAuthority, Mongod, ReplicaSet, find_mongod

ROOT = Path(txmongo.__file__).parent.parent
PAGES = [ROOT / "README.rst", *sorted((ROOT / "docs").glob("*.rst"))]
DIRECTIVE = re.compile(r"\.\. code-block:: (\w+)\n\n((?:[ ]{4}.*\n|\n)+)")
THE_SERVER = "mongodb://127.0.0.1:27017"
THE_SET = f"{THE_SERVER}/?replicaSet=rs0"
THREE_MEMBERS = "mongodb://a.example,b.example,c.example/?replicaSet=rs0"
#: It takes TLS only, and asks for a user; the files are those of a client.
THE_SECURE_SERVER = "db.example"
CA_FILE = "/etc/mongodb/ca.pem"
CLIENT_FILE = "/etc/mongodb/client.pem"
#: Pages on how to come from another API, and the one of them that uses what is deprecated, and says so.
MIGRATION = "migrating_"
WARNS = "migrating_15"


@attrs.frozen
class Block:
    """A piece of code on a page, and what the page says that it prints."""

    page: Path
    line: int
    code: str
    output: str | None

    @property
    def place(self) -> str:
        """For error messages."""
        return f"{self.page.name}:{self.line}"

    @property
    def is_program(self) -> bool:
        """Whether it runs a reactor of its own."""
        return "task.react(" in self.code

    @property
    def is_test_case(self) -> bool:
        """Whether it is for trial."""
        return "TestCase)" in self.code


def blocks_of(page: Path) -> Iterator[Block]:
    """The pieces of code on a page."""
    text = page.read_text()
    for directive, following in pairwise([*DIRECTIVE.finditer(text), None]):
        if directive is None or directive[1] != "python":
            continue
        output = None
        if following is not None and following[1] == "text" and not text[directive.end() : following.start()].strip():
            output = textwrap.dedent(following[2]).strip() + "\n"
        line = text.count("\n", 0, directive.start(2)) + 1
        yield Block(page, line, textwrap.dedent(directive[2]), output)


async def run_python(*arguments: str, PYTHONPATH: str = "", **variables: str) -> str:
    """Run Python in a process of its own; what it printed, errors included, and how it ended unless well."""
    path = os.pathsep.join(folder for folder in (PYTHONPATH, *sys.path) if folder)
    inherited = {name: value for name, value in os.environ.items() if name != "MONGODB_URI"}
    environment = {**inherited, "TXMONGO_MONGOD": find_mongod(), "PYTHONPATH": path, **variables}
    output, errors, status = await utils.getProcessOutputAndValue(sys.executable, arguments, environment)
    return (output + errors).decode() + (f"exit status {status}\n" if status else "")


class PageTests(TestCase):
    """One test a page."""

    timeout = 240

    async def run_page(self, page: Path) -> None:
        """Run all blocks of a page."""
        namespace: dict[str, Any] = {"__name__": "page"}
        self.running: dict[str, Any] = {}
        self.addCleanup(lambda: namespace["client"].disconnect() if "client" in namespace else None)
        for block in blocks_of(page):
            if block.is_test_case:
                await self.run_test_case(block)
            elif block.is_program:
                self.check(block, await run_python("-c", block.code))
            else:
                self.check(block, await self.run_here(block, namespace))
        if page.stem.startswith(MIGRATION):
            ours = [each for each in self.flushWarnings() if "deprecated since txmongo" in str(each["message"])]
            self.assertEqual(bool(ours), page.stem == WARNS)

    async def run_here(self, block: Block, namespace: dict[str, Any]) -> str:
        """Run a block in this process; what it printed."""
        printed = io.StringIO()
        namespace["print"] = partial(print, file=printed)
        source = await self.with_servers(block.code)
        code = compile(source, block.place, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        running = eval(code, namespace)
        if running is not None:
            await running
        return printed.getvalue()

    async def with_servers(self, source: str) -> str:
        """Code in which the servers that a page names are replaced by running ones."""
        if THREE_MEMBERS in source:
            replica_set = await self.run_once(THREE_MEMBERS, lambda: ReplicaSet(reactor, 3))
            source = source.replace(THREE_MEMBERS, replica_set.uri)
        if THE_SET in source:
            replica_set = await self.run_once(THE_SET, lambda: ReplicaSet(reactor, 1))
            source = source.replace(THE_SET, replica_set.uri)
        if THE_SERVER in source:
            mongod = await self.run_once(THE_SERVER, lambda: Mongod(reactor))
            source = source.replace(THE_SERVER, mongod.uri.rstrip("/"))
        if THE_SECURE_SERVER in source:
            for name, real in (await self.secure_server()).items():
                source = source.replace(name, real)
        return source

    async def run_once(self, name: str, make: Callable[[], Any]) -> Any:
        """The server or replica set that a page calls by a name, the same for all of its blocks."""
        if name not in self.running:
            self.running[name] = await make().start()
            self.addCleanup(self.running[name].stop)
        return self.running[name]

    async def secure_server(self) -> dict[str, str]:
        """Start the server with TLS, a user with a password and one by certificate; what its names stand for."""
        if THE_SECURE_SERVER not in self.running:
            authority = CertificateAuthority(self.mktemp())
            files = authority.tls_files()
            mongod = await self.run_once(THE_SECURE_SERVER, lambda: Mongod(reactor, tls=files, auth=True))
            roles = [{"role": "readWriteAnyDatabase", "db": "admin"}]
            await mongod.command("admin", {"createUser": "librarian", "pwd": "secret", "roles": roles})
            await mongod.command("$external", {"createUser": "CN=shelf-7,O=txmongo clients", "roles": roles})
            self.stand_ins = {
                THE_SECURE_SERVER: f"localhost:{mongod.port}",
                CA_FILE: str(authority.ca_file),
                CLIENT_FILE: str(authority.client("shelf-7")),
            }
        return self.stand_ins

    async def run_test_case(self, block: Block) -> None:
        """Have trial run a block."""
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        (folder / "test_page.py").write_text(block.code)
        trial = ("-m", "twisted.trial", "--temp-directory", str(folder / "temp"), "test_page")
        printed = await run_python(*trial, PYTHONPATH=str(folder))
        self.assertIn("PASSED", printed, block.place)

    def check(self, block: Block, printed: str) -> None:
        """Compare what was printed with what the page says."""
        expected = block.output or ""
        same = doctest.OutputChecker().check_output(expected, printed, doctest.ELLIPSIS)
        self.assertTrue(same, f"{block.place} says that this prints\n{expected}\nbut it prints\n{printed}")


def _test_of(page: Path) -> Any:
    async def test(self: PageTests) -> None:
        await self.run_page(page)

    test.__doc__ = f"The code of {page.name} runs and prints what the page says."
    return test


for _page in PAGES:
    if any(blocks_of(_page)):
        setattr(PageTests, f"test_{_page.stem.lower()}", _test_of(_page))


class ExampleTests(TestCase):
    """The programs in the examples folder."""

    timeout = 120
    quickstart = str(ROOT / "examples" / "quickstart.py")

    async def test_quickstart(self) -> None:
        """Without $MONGODB_URI it starts a server, takes the whole tour and leaves nothing behind."""
        printed = await run_python(self.quickstart)
        for line in ("Inserted 1 and [2, 3, 4, 5]", "IXSCAN on author_1_year_-1", "In bulk: 1 in, 4 changed, 1 out"):
            self.assertIn(line, printed)
        self.assertRegex(printed, r"1000 reads at once, \d+ hits: \d+\.\d\d s, [\d,]+ a second\nDisconnected\n")
        self.assertTrue(printed.endswith("The throw-away mongod is gone\n"), printed)

    async def test_quickstart_elsewhere(self) -> None:
        """With $MONGODB_URI it works on that server and removes its database again."""
        mongod = await Mongod(reactor).start()
        self.addCleanup(mongod.stop)
        printed = await run_python(self.quickstart, MONGODB_URI=mongod.uri)
        self.assertTrue(printed.endswith("Disconnected\n"), printed)
        left = await mongod.command("admin", {"listDatabases": 1, "nameOnly": True})
        self.assertNotIn("txmongo_quickstart", [database["name"] for database in left["databases"]])

    async def test_transactions(self) -> None:
        """Without $MONGODB_URI it starts a replica set; no money comes or goes, however often transactions meet."""
        printed = await run_python(str(ROOT / "examples" / "transactions.py"))
        for line in (
            "After 30: alice has 70, bob has 30\nAfter 1000: alice has 70, bob has 30\n",
            "A conflict: code 112, may be tried again: True\n",
            "After 20 transfers at once: alice has 49, bob has 51\n",
            "After an abort: alice has 49\n",
        ):
            self.assertIn(line, printed)
        self.assertTrue(printed.endswith("The throw-away replica set is gone\n"), printed)

    async def test_tls(self) -> None:
        """The example of TxMongo 15.2's documentation fetches ten documents over TLS, where both ends are known."""
        printed = await run_python(str(ROOT / "examples" / "tls.py"))
        self.assertEqual(printed, "".join(f"{{'_id': {number}}}\n" for number in range(10)))

    async def test_failover(self) -> None:
        """The failover example loses two primaries and no write."""
        printed = await run_python(str(ROOT / "examples" / "failover.py"))
        for line in ("When the primary stepped down", "When the next primary was killed"):
            self.assertRegex(printed, rf"{line}: the longest pause was \d+\.\d\d s, 0 operations failed\n")
        self.assertRegex(printed, r"Lost: 0\nDone twice: 0\nAcknowledged: \d\d+ orders\n")
        self.assertTrue(printed.endswith("The throw-away replica set is gone\n"), printed)


class BlockTests(TestCase):
    """How code is found on a page."""

    def test_blocks(self) -> None:
        """Code is found with its line, and the output that stands right behind it."""
        page = Path(self.mktemp())
        page.write_text(
            "Title\n\n.. code-block:: python\n\n    a = 1\n\n    b = 2\n\nText.\n\n"
            ".. code-block:: python\n\n    print(a)\n\n.. code-block:: text\n\n    1\n"
        )
        self.assertEqual(
            list(blocks_of(page)), [Block(page, 5, "a = 1\n\nb = 2\n\n", None), Block(page, 13, "print(a)\n\n", "1\n")]
        )

    def test_every_page(self) -> None:
        """The README and every page of the guide have code to run."""
        with_code = {page.stem for page in PAGES if any(blocks_of(page))}
        index = (ROOT / "docs" / "index.rst").read_text()
        guide = re.findall(r"^ {3}(?:.+ <)?(\w+)>?$", index[: index.index(":caption: Reference")], re.MULTILINE)
        self.assertGreater(len(guide), 15)
        self.assertLessEqual({"README", *guide}, with_code)

    def test_width(self) -> None:
        """Code in the guide fits beside the navigation, where a page shows ninety columns."""
        for page in PAGES[1:]:
            for block in blocks_of(page):
                self.assertLessEqual(max(map(len, block.code.splitlines())), 90, block.place)
