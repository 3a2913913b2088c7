"""How the time of a call, or of a stream from its making to its end, is dealt out to the operations that it takes.

Kept: the client side operations timeout specification, "GridFS API".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from txmongo._deferreds import Clock
from txmongo._ops.timeouts import TimeLimit, Timing, check_timing, time_limit
from txmongo.collection import Collection

__all__ = ["UNLIMITED", "Times"]

_NO_KEYWORDS: Timing = {}

#: Milliseconds: what an operation is given when no time is left, for 0 would be no limit. It is not sent.
_NONE_LEFT = 1e-6


@attrs.frozen
class Times:
    """Until when something may last.

    :ivar limit: ``None`` if nothing limits it.
    """

    clock: Clock | None
    limit: TimeLimit | None

    @classmethod
    def begin(cls, collection: Collection[Any], timing: Mapping[str, Any]) -> Times:
        """The time of a call that begins now.

        :param collection: one of the bucket: its ``timeoutMS`` holds unless the call has one.
        :param timing: the call's keywords: :class:`~txmongo._ops.timeouts.Timing`.
        :raises TypeError: a keyword is unknown or has no number.
        :raises ValueError: ``timeout_ms`` is negative.
        """
        if not timing and collection.timeout_ms is None:
            return UNLIMITED
        check_timing(timing)
        clock = collection.database.client._executor.clock
        inherited = collection.timeout_ms
        return cls(clock, time_limit(clock, None if inherited is None else inherited / 1000, timing))

    def left(self) -> Timing:
        """What an operation that begins now is to be given."""
        limit = self.limit
        if limit is None or self.clock is None:
            return _NO_KEYWORDS
        timing: Timing = {}
        if limit.csot:
            remaining = limit.deadline.remaining(self.clock.seconds())
            timing["timeout_ms"] = 0 if remaining is None else max(remaining * 1000, _NONE_LEFT)
        if limit.named.at is not None:
            timing["deadline"] = limit.named.at
        return timing


#: No limit.
UNLIMITED = Times(None, None)
