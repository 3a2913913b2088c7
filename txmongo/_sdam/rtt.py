"""How long a server takes to answer: the average for the latency window, the minimum for timeouts.

Server selection specification, "Calculation of Average Round Trip Times"; server monitoring specification, "Measuring
RTT". Only arithmetic; the samples come from the monitors.
"""

from __future__ import annotations

from collections import deque

__all__ = ["RoundTripTimes", "weighted_average"]

#: About 85 % of the weight lies on the nine newest samples.
_ALPHA = 0.2
_RECENT = 10
_ENOUGH_FOR_MINIMUM = 2


def weighted_average(average: float | None, sample: float) -> float:
    """The exponentially weighted moving average after one more sample; the first sample is the average."""
    return sample if average is None else _ALPHA * sample + (1 - _ALPHA) * average


class RoundTripTimes:
    """The round trip times of one server, in seconds.

    :ivar average: the moving average, or ``None`` while there is no sample.
    """

    __slots__ = ("_recent", "average")

    def __init__(self) -> None:
        self.average: float | None = None
        self._recent: deque[float] = deque(maxlen=_RECENT)

    @property
    def minimum(self) -> float:
        """The least of the last ten samples; 0 until there are two."""
        return min(self._recent) if len(self._recent) >= _ENOUGH_FOR_MINIMUM else 0.0

    def add(self, sample: float) -> None:
        """Count one measurement."""
        self.average = weighted_average(self.average, sample)
        self._recent.append(sample)

    def reset(self) -> None:
        """Forget everything: the server became Unknown."""
        self.average = None
        self._recent.clear()
