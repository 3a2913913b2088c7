"""How Sphinx builds the documentation: ``tox run -e docs``."""

from __future__ import annotations

import txmongo._version

project = "txmongo"
author = "The txmongo maintainers"
copyright = "The txmongo maintainers"
version = release = txmongo._version.__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.viewcode"]
html_theme = "furo"
html_title = f"txmongo {release}"
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
    (r"py:.*", r"(bson|pymongo|twisted|zope|OpenSSL|collections|typing|re|datetime|pathlib|_cffi_backend)(\..*)?"),
    (r"py:.*", r"txmongo\.(\w+\.)*_\w+.*"),
    (r"py:exc", r"\w+"),
    (r"py:class", r"\w+|<InterfaceClass .*|enum\..*"),  # in signatures, as they are spelled in the source
    (r"py:data", r"[A-Z_]+"),  # constants of the private modules
]
