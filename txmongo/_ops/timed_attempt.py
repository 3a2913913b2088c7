"""One try of an operation whose time is limited.

Everything that a limit costs is here and in :mod:`txmongo._ops.timeouts`: operations without one run as plain
:class:`~txmongo._ops.attempt.Attempt` objects. Client side operations timeout specification, "Command Execution".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from txmongo._deferreds import Deadline
from txmongo._ops.attempt import Attempt, Owner
from txmongo._ops.base import Operation
from txmongo._ops.timeouts import TimeLimit
from txmongo.errors import NetworkTimeout

if TYPE_CHECKING:
    from collections.abc import Mapping

    from txmongo._cmap.connection import Connection
    from txmongo._wire.op_msg import Msg

__all__ = ["TimedAttempt"]


class TimedAttempt(Attempt):
    """An attempt that ends when its operation's time is up.

    In flight it then fails at once with :class:`~txmongo.errors.NetworkTimeout`; the late reply is dropped and the
    connection goes on.

    :ivar limit: of the whole operation.
    :ivar time_to_connect: until when a server and a connection must be had; set when the selection begins.
    """

    limit: TimeLimit
    time_to_connect = Deadline.never
    _expired = False
    #: Neither the reply nor anything in its place is waited for any more.
    _over = False
    _timer: IDelayedCall | None = None
    _sending: Deferred[Any] | None = None

    def __init__(self, owner: Owner, operation: Operation[Any], read_preference: Any, limit: TimeLimit) -> None:
        super().__init__(owner, operation, read_preference)
        self.limit = limit
        self.patient = limit.csot

    def again(self) -> TimedAttempt:
        """A new attempt of the same operation."""
        return TimedAttempt(self._owner, self.operation, self.read_preference, self.limit)

    def send(self, connection: Connection) -> Deferred[Any]:
        """Write the command, unless there is too little time left, and wait for the reply as long as there is some."""
        self._sending = sending = super().send(connection)
        if not sending.called and not self._over:
            clock = self._owner.clock
            remaining = self.limit.deadline.remaining(clock.seconds())
            if remaining is not None:
                self._timer = clock.callLater(remaining, self._expire)
        return sending

    def limit_time(self, command: dict[str, Any]) -> None:
        """Make the command fit the time that is left.

        :raises ExecutionTimeout: there is too little.
        """
        description = self.server_description
        round_trip = 0.0 if description is None else description.min_round_trip_time
        self.limit.complete(command, self.operation, round_trip, self._owner.clock.seconds())

    def _expire(self) -> None:
        """The time is over; a reply may have come while the reactor was held up, and is read in its next turn."""
        self._timer = self._owner.clock.callLater(0, self._expire_unanswered)

    def _expire_unanswered(self) -> None:
        self._timer = None
        self._expired = True
        assert self._sending is not None
        self._sending.cancel()

    def _plain_message(self, connection: Connection) -> Msg | None:
        """Its commands carry more than plain ones."""
        return None

    def _disarm(self) -> None:
        self._over = True
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def failed_with(self, failure: Failure) -> Failure:
        """The attempt is over: the failure as it is to be judged, for time that was up shows as a cancel."""
        self._disarm()
        if self._expired and isinstance(failure.value, CancelledError):
            return Failure(self._timed_out())
        return failure

    def _timed_out(self) -> NetworkTimeout:
        host, port = self.address
        return NetworkTimeout(f"{host}:{port}: timed out: no reply to {self.operation.name} came in the time given")

    def _succeeded(self, reply: Mapping[str, Any] | None) -> Any:
        self._disarm()
        return super()._succeeded(reply)

    def _answered(self, reply: Mapping[str, Any] | None) -> Any:
        self._disarm()
        return super()._answered(reply)

    def _publish_failed(self, error: BaseException) -> None:
        if self._expired and isinstance(error, CancelledError):
            error = self._timed_out()
        super()._publish_failed(error)
