"""Whether a case may run against a deployment: ``runOnRequirements``, ``skipReason`` and the schema version. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from tests.conformance.loader import Case
from tests.conformance.unified.failures import FormatError

__all__ = ["ServerFacts", "check_schema_version", "parse_version", "unmet"]

#: The newest version of the format that this runner knows.
SCHEMA_VERSION = (1, 26, 0)

KNOWN = frozenset(
    {
        "minServerVersion",
        "maxServerVersion",
        "topologies",
        "serverless",
        "serverParameters",
        "auth",
        "authMechanism",
        "csfle",
    }
)


@attrs.frozen
class ServerFacts:
    """What a deployment is.

    :ivar version: of the server, as three numbers.
    :ivar topology: ``"single"``, ``"replicaset"`` or ``"load-balanced"``.
    :ivar auth: whether clients have to authenticate.
    :ivar parameters: the server's parameters.
    :ivar libmongocrypt: the version of the library for client-side encryption; ``None`` without.
    """

    version: tuple[int, int, int]
    topology: str
    auth: bool
    parameters: Mapping[str, Any] = attrs.field(repr=False)
    libmongocrypt: tuple[int, int, int] | None = None


def parse_version(text: str) -> tuple[int, int, int]:
    """A version string's first three numbers; missing ones are zero.

    :raises FormatError: it is no version.
    """
    try:
        numbers = [int(part) for part in text.split("-")[0].split(".")[:3]]
    except ValueError:
        raise FormatError(f"{text!r} is no version") from None
    major, minor, patch = [*numbers, 0, 0][:3]
    return major, minor, patch


def check_schema_version(document: Mapping[str, Any]) -> None:
    """
    :raises FormatError: the file is of a version of the format that this runner does not know.
    """
    text = document.get("schemaVersion")
    if not isinstance(text, str):
        raise FormatError(f"the schema version is {text!r}")
    version = parse_version(text)
    if version[0] != SCHEMA_VERSION[0] or version > SCHEMA_VERSION:
        raise FormatError(f"schema version {text} is not one that is known")


def unmet(case: Case, facts: ServerFacts) -> str | None:
    """Why a case may not run against a deployment; ``None`` if it may."""
    reason = case.test.get("skipReason")
    if reason is not None:
        return f"the specification skips it: {reason}"
    for requirements in (case.document.get("runOnRequirements"), case.test.get("runOnRequirements")):
        why = _none_met(requirements, facts)
        if why is not None:
            return why
    return None


def _none_met(requirements: Sequence[Mapping[str, Any]] | None, facts: ServerFacts) -> str | None:
    if requirements is None:
        return None
    reasons = [_unmet(requirement, facts) for requirement in requirements]
    if None in reasons:
        return None
    return "; or ".join(reason for reason in dict.fromkeys(reasons) if reason is not None)


def _unmet(requirement: Mapping[str, Any], facts: ServerFacts) -> str | None:
    """The first reason why one requirement is not met."""
    unknown = set(requirement) - KNOWN
    if unknown:
        raise FormatError(f"unknown requirement: {', '.join(sorted(unknown))}")
    least, most = requirement.get("minServerVersion"), requirement.get("maxServerVersion")
    topologies = requirement.get("topologies")
    if topologies is not None and facts.topology not in topologies:
        return f"wants topology {' or '.join(topologies)}"
    if least is not None and facts.version < parse_version(least):
        return f"wants server {least} or newer"
    if most is not None and facts.version > parse_version(most):
        return f"wants server {most} or older"
    if requirement.get("serverless") == "require":
        return "wants a serverless instance"
    if "auth" in requirement and requirement["auth"] != facts.auth:
        return "wants authentication" if requirement["auth"] else "wants no authentication"
    if "csfle" in requirement:
        reason = _unmet_encryption(requirement["csfle"], facts.libmongocrypt)
        if reason is not None:
            return reason
    return _unmet_parameter(requirement, facts.parameters)


def _unmet_encryption(wanted: Any, version: tuple[int, int, int] | None) -> str | None:
    if not wanted:
        return None if version is None else "wants no client-side encryption"
    if version is None:
        return "wants client-side encryption"
    least = wanted["minLibmongocryptVersion"] if isinstance(wanted, Mapping) else "0"
    return f"wants libmongocrypt {least} or newer" if version < parse_version(least) else None


def _unmet_parameter(requirement: Mapping[str, Any], parameters: Mapping[str, Any]) -> str | None:
    for name, value in requirement.get("serverParameters", {}).items():
        if parameters.get(name, None) != value or isinstance(parameters[name], bool) != isinstance(value, bool):
            return f"wants server parameter {name}={value}"
    mechanism = requirement.get("authMechanism")
    mechanisms = [str(one).lower() for one in parameters.get("authenticationMechanisms", [])]
    if mechanism is not None and mechanism.lower() not in mechanisms:
        return f"wants authentication mechanism {mechanism}"
    return None
