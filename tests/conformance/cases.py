"""Makes test methods of specification tests that have a format of their own."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from tests.conformance.loader import Case, load_cases

__all__ = ["add_cases"]


def add_cases(
    test_case: type[Any],
    suite: str,
    run: Callable[[Any, Case], Any],
    *,
    leave_out: Callable[[Case], bool] | None = None,
) -> int:
    """Give a test case class one method for each case of a suite.

    :param run: called with the test case's instance and the case.
    :param leave_out: true for cases that belong to another runner.
    :returns: how many methods were added.
    """
    count = 0
    for case in load_cases(suite):
        if leave_out is not None and leave_out(case):
            continue
        below = case.folder.removeprefix(suite)
        name = "test_" + re.sub(r"\W+", "_", "_".join((below, case.file, case.description)).strip("_/"))

        def method(self: Any, case: Case = case) -> Any:
            return run(self, case)

        method.__name__ = name
        method.__doc__ = f"{case}."
        assert not hasattr(test_case, name), f"two cases are called {name}"
        setattr(test_case, name, method)
        count += 1
    return count
