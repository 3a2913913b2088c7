"""Page after page of a cursor. The executor waits for the test to answer."""

from __future__ import annotations

import gc
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, gatherResults, inlineCallbacks
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.reading import held_database
from txmongo.errors import InvalidOperation, OperationFailure

ONE, TWO, THREE = {"_id": 1}, {"_id": 2}, {"_id": 3}


class PageCase(SynchronousTestCase):
    """A collection over an executor that waits for the test to answer."""

    def setUp(self) -> None:
        self.database, self.client = held_database()
        self.executor = self.client.executor
        self.things = self.database["things"]

    def first(self) -> Any:
        """The first of two pages, and the Deferred of the next."""
        first = self.things.find_with_cursor({"x": 1})
        self.executor.first_batch(ONE, TWO, cursor_id=7)
        documents, following = self.successResultOf(first)
        self.assertEqual(documents, [ONE, TWO])
        return following

    def killed(self) -> list[list[int]]:
        """The ids of each killCursors so far."""
        return [command["cursors"] for command in self.executor.commands if "killCursors" in command]


class PageTests(PageCase):
    """The pages."""

    def test_pages(self) -> None:
        """Each is a tuple of documents and of the Deferred of the next; the last is ([], None)."""
        following = self.first()
        got: list[Any] = []
        following.addCallback(got.append)
        self.executor.next_batch(THREE, cursor_id=0)
        documents, last = got.pop()
        self.assertEqual(documents, [THREE])
        self.assertEqual(self.successResultOf(last), ([], None))
        self.assertEqual(self.executor.names(), ["find", "getMore"])

    def test_none(self) -> None:
        """If nothing is found the first page is the last."""
        first = self.things.find_with_cursor()
        self.executor.first_batch()
        self.assertEqual(self.successResultOf(first), ([], None))

    def test_empty_batch(self) -> None:
        """A batch without documents that is not the last is no page."""
        first = self.things.find_with_cursor()
        self.executor.first_batch(cursor_id=7)
        self.assertNoResult(first)
        self.executor.next_batch(ONE)
        self.assertEqual(self.successResultOf(first)[0], [ONE])

    def test_tailable(self) -> None:
        """Of a cursor that stays open at its end pages may be empty."""
        first = self.things.find_with_cursor(flags=2)
        self.executor.first_batch(cursor_id=7)
        documents, following = self.successResultOf(first)
        self.assertEqual(documents, [])
        got: list[Any] = []
        following.addCallback(got.append)
        self.executor.next_batch(ONE, cursor_id=7)
        self.assertEqual(got[0][0], [ONE])

    def test_failure(self) -> None:
        """What goes wrong is the failure of the page."""
        got: list[Any] = []
        self.first().addErrback(got.append)
        self.executor.fail(OperationFailure("no", 1))
        self.assertIsInstance(got[0].value, OperationFailure)

    def test_at_once(self) -> None:
        """The first page is asked for at the call, the next when somebody waits for it."""
        following = self.first()
        self.assertEqual(self.executor.names(), ["find"])
        following.addCallback(lambda page: page)
        self.assertEqual(self.executor.names(), ["find", "getMore"])


class WaitTests(PageCase):
    """However somebody waits for a page, it comes."""

    def check(self, waiting: Deferred[Any]) -> None:
        """One request, whose answer arrives."""
        self.assertEqual(self.executor.names(), ["find", "getMore"])
        self.executor.next_batch(THREE)
        self.assertEqual(self.successResultOf(waiting)[0], [THREE])

    def test_await(self) -> None:
        """await."""
        following = self.first()

        async def wait() -> Any:
            return await following

        self.check(Deferred.fromCoroutine(wait()))

    def test_await_what_is_there(self) -> None:
        """await where the answer is known already: the end."""
        first = self.things.find_with_cursor()
        self.executor.first_batch(ONE)
        _, following = self.successResultOf(first)

        async def wait() -> Any:
            return await following

        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(wait())), ([], None))

    def test_yield(self) -> None:
        """yield."""
        following = self.first()

        @inlineCallbacks
        def wait() -> Any:
            page = yield following
            return page

        self.check(wait())

    def test_returned(self) -> None:
        """Being returned from a callback."""
        following = self.first()
        waiting: Deferred[Any] = Deferred()
        waiting.addCallback(lambda _: following)
        waiting.callback(None)
        self.check(waiting)

    def test_gathered(self) -> None:
        """gatherResults."""
        self.check(gatherResults([self.first()]).addCallback(lambda pages: pages[0]))


class StopTests(PageCase):
    """Stopping before the end."""

    def test_dropped(self) -> None:
        """When the Deferred of the next page is dropped the cursor is killed."""
        following = self.first()
        del following
        gc.collect()
        self.client.clock.advance(1)
        self.assertEqual(self.killed(), [[7]])

    def test_cancel(self) -> None:
        """A page that is waited for can be cancelled; that kills the cursor."""
        following = self.first()
        got: list[Any] = []
        following.addErrback(got.append)
        following.cancel()
        self.assertIsInstance(got[0].value, CancelledError)
        self.assertEqual(self.killed(), [[7]])

    def test_cancel_unused(self) -> None:
        """So can one that nobody waits for, which logs nothing; it has no page then."""
        following = self.first()
        following.cancel()
        self.assertEqual(self.killed(), [[7]])
        got: list[Any] = []
        following.addErrback(got.append)
        self.assertIsInstance(got[0].value, InvalidOperation)
        del following
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_cancel_first(self) -> None:
        """The first page can be cancelled."""
        first = self.things.find_with_cursor()
        first.cancel()
        self.failureResultOf(first, CancelledError)
