"""Unit tests: no socket, no real time, and no chance: Hypothesis draws the same examples each time.

With ``HYPOTHESIS_PROFILE=random`` they are others each time. How long an example takes is not judged: a machine may be
busy.
"""

import os

from hypothesis import HealthCheck, settings

for _name, _always_the_same in (("repeatable", True), ("random", False)):
    settings.register_profile(
        _name,
        deadline=None,
        derandomize=_always_the_same,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))
