"""``txmongo._lazy_deferred``: work that begins when somebody waits for it. Cursors have tests of their own."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from twisted.internet.defer import Deferred, gatherResults, inlineCallbacks, succeed
from twisted.trial.unittest import SynchronousTestCase

from txmongo._lazy_deferred import LazyDeferred


class _Answer(LazyDeferred[int]):
    """Fires with 42: at once, or when the test has it fire."""

    def __init__(self, begun: list[str], *, at_once: bool) -> None:
        super().__init__()
        self._begun_by = begun
        self._at_once = at_once

    def _begin(self) -> None:
        self._begun_by.append("begun")
        if self._at_once:
            self.callback(42)


class LazyDeferredTests(SynchronousTestCase):
    """When it begins, and what it fires with."""

    def setUp(self) -> None:
        self.begun: list[str] = []

    def begins(self, use: Callable[[_Answer], Deferred[Any]], result: Any = 42) -> None:
        """Using it begins it, once, and gives its result, whether that is there at once or later."""
        for at_once in (True, False):
            self.begun.clear()
            answer = _Answer(self.begun, at_once=at_once)
            self.assertEqual(self.begun, [])
            used = use(answer)
            self.assertEqual(self.begun, ["begun"])
            if not at_once:
                self.assertNoResult(used)
                answer.callback(42)
            self.assertEqual(self.successResultOf(used), result)
            self.assertEqual(self.begun, ["begun"])

    def test_callback(self) -> None:
        """A callback begins it; a second one does not begin it again."""
        self.begins(lambda answer: answer.addCallback(lambda number: number))
        self.begins(
            lambda answer: answer.addErrback(lambda failure: failure).addCallback(lambda number: number + 1), 43
        )

    def test_gathered(self) -> None:
        """So does being gathered."""
        self.begins(lambda answer: gatherResults([answer]), [42])

    def test_returned(self) -> None:
        """So does being returned from the callback of another."""
        self.begins(lambda answer: succeed(None).addCallback(lambda _: answer))

    def test_awaited(self) -> None:
        """So does being awaited."""

        async def use(answer: _Answer) -> int:
            return await answer

        self.begins(lambda answer: Deferred.fromCoroutine(use(answer)))

    def test_yielded(self) -> None:
        """So does being yielded, and the older way of delegating to it."""

        @inlineCallbacks
        def use(answer: _Answer) -> Generator[Deferred[int], int, int]:
            return (yield answer)

        @inlineCallbacks
        def delegate(answer: _Answer) -> Generator[Deferred[int], int, int]:
            return (yield from answer)

        self.begins(use)
        self.begins(delegate)

    def test_iterated(self) -> None:
        """A ``for`` over it is refused, where it would go round for ever."""
        answer = _Answer(self.begun, at_once=False)
        found = iter(answer)
        self.assertIs(next(found), answer)
        self.assertRaisesRegex(TypeError, "_Answer has nothing before it is waited for", next, found)

    def test_nothing(self) -> None:
        """The base has nothing to do."""
        self.assertRaises(NotImplementedError, LazyDeferred[int]().addCallback, print)
