"""Scripts of the project that are no modules of a package, for tests of what is in them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import txmongo

#: Where the project stands, its tests and scripts beside the package.
ROOT = Path(txmongo.__file__).parent.parent


def load(file: str) -> Any:
    """A script as a module.

    :param file: where it is in the project.
    """
    path = ROOT / file
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
