"""How Sphinx builds the documentation: ``tox run -e docs``."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Container, Iterator
from pathlib import Path
from types import ModuleType

from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

import txmongo._version

project = "txmongo"
author = "The txmongo maintainers"
copyright = "The txmongo maintainers"
version = release = txmongo._version.__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.viewcode"]
html_theme = "furo"
html_title = f"txmongo {release}"
# Ninety columns of code fit into a page; tests/integration/test_docs.py holds the guide to that.
html_theme_options = {"light_css_variables": {"code-font-size": "0.77rem"}}
html_static_path = ["_static"]
exclude_patterns = ["_build"]
default_role = "any"

autodoc_default_options = {"members": True, "show-inheritance": True, "member-order": "bysource"}
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100

# References inside the project must resolve. Those to other projects are not looked up, so that the documentation
# builds without a network; nor are the private modules that public types are spelled with.
nitpick_ignore_regex = [
    (
        r"py:.*",
        r"(abc|bson|pymongo|twisted|zope|OpenSSL|collections|typing|re|datetime|pathlib|uuid|_cffi_backend)(\..*)?",
    ),
    (r"py:.*", r"txmongo\.(\w+\.)*_\w+.*"),
    (r"py:exc", r"\w+"),
    (r"py:class", r"\w+|<InterfaceClass .*|enum\..*"),  # in signatures, as they are spelled in the source
    (r"py:data", r"[A-Z_]+"),  # constants of the private modules
]

# tests/unit/test_exports.py pins what is public; here every bit of it has to be documented.


def public_classes(module: ModuleType) -> list[type]:
    """The classes that a module offers under their own names."""
    named = ((name, getattr(module, name)) for name in module.__all__)
    return [value for name, value in named if inspect.isclass(value) and value.__name__ == name]


def own_members(value: type) -> Iterator[tuple[str, type]]:
    """The methods and properties of a class, each with the class of ours that has it; what is for the driver, not."""
    for base in value.__mro__:
        if base.__module__.startswith("txmongo") and base.__name__ != "SessionState":
            for member, content in vars(base).items():
                if not member.startswith("_") and (inspect.isroutine(content) or isinstance(content, property)):
                    yield member, base


def undocumented(module: ModuleType, documented: Container[str]) -> Iterator[str]:
    """What a module offers and the reference leaves out.

    What several classes inherit is documented once, with one of them.
    """
    name, classes = module.__name__, public_classes(module)
    for each in module.__all__:
        if not isinstance(getattr(module, each), ModuleType) and f"{name}.{each}" not in documented:
            yield f"{name}.{each}"
    for value in classes:
        for member, base in own_members(value):
            heirs = [heir.__name__ for heir in classes if issubclass(heir, base)] if base is not value else []
            if not any(f"{name}.{heir}.{member}" in documented for heir in [value.__name__, *heirs]):
                yield f"{name}.{value.__name__}.{member}"


def check_complete(app: Sphinx, env: BuildEnvironment) -> None:
    """Warn of public names that the reference leaves out."""
    documented = {name for name, *_ in env.get_domain("py").get_objects()}
    for page in sorted(Path(app.srcdir, "api").glob("*.rst")):
        if page.stem != "index":
            module = importlib.import_module(f"txmongo.{page.stem}")
            for name in sorted(set(undocumented(module, documented))):
                logging.getLogger("docs").warning("%s is not documented", name, location=f"api/{page.stem}")


#: What stands in signatures for values that are spelled so that Sphinx could not lay out the whole.
SHOWN = [
    (r"<InterfaceClass ([\w.]+)>", r"~\1"),
    (r"\(<class 'dict'>, False, .*?, DatetimeConversion\.DATETIME\)", "CodecOptions()"),
]


def as_read(
    app: Sphinx, what: str, name: str, value: object, options: object, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Make a signature one for readers.

    Classes whose objects are made by methods only, as their ``__init__`` says, are shown without arguments.
    """
    if what == "class" and (inspect.getdoc(getattr(value, "__init__", None)) or "").startswith("Made by"):
        return "", returns
    for pattern, shown in SHOWN:
        signature = signature and re.sub(pattern, shown, signature)
        returns = returns and re.sub(pattern, shown, returns)
    return signature, returns


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-signature", as_read)
    app.connect("env-check-consistency", check_complete)
