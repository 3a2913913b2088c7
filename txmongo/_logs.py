"""The structured log messages of the specifications: whether a client writes them, and in which form.

Lives here: the levels of the components, where they are taken from, and :class:`ComponentLog`, through which all
messages of a component leave for :mod:`twisted.logger`. What a message says is with those who publish the events:
``_ops.command_events``, ``_cmap.events``, ``_sdam.events``, ``_sdam.selection_log``. Twisted's logger does not know
whether anybody listens; so a component that was not switched on has no :class:`ComponentLog` at all, and costs nothing.
Logging specification.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from string import Formatter
from typing import Any

import attrs
from bson import json_util
from bson.binary import UUID_SUBTYPE, Binary, UuidRepresentation
from bson.objectid import ObjectId
from twisted.logger import Logger, LogLevel

from txmongo.types import Address

__all__ = [
    "DEFAULT_MAX_DOCUMENT_LENGTH",
    "ComponentLog",
    "LogSettings",
    "Template",
    "address_fields",
    "document_text",
    "log_settings",
    "milliseconds",
    "validate_length",
    "validate_levels",
]

_log = Logger(namespace="txmongo.logs")

DEFAULT_MAX_DOCUMENT_LENGTH = 1000

#: By component, the environment variable that switches it on.
_VARIABLES = {
    "command": "MONGODB_LOG_COMMAND",
    "topology": "MONGODB_LOG_TOPOLOGY",
    "serverSelection": "MONGODB_LOG_SERVER_SELECTION",
    "connection": "MONGODB_LOG_CONNECTION",
}
_ALL_VARIABLE = "MONGODB_LOG_ALL"
_LENGTH_VARIABLE = "MONGODB_LOG_MAX_DOCUMENT_LENGTH"

#: The specification's levels, from the most to the least severe; of Twisted's names only "warn" is among them too.
_LEVELS = ("off", "emergency", "alert", "critical", "error", "warn", "notice", "info", "debug", "trace")
_INFO, _DEBUG = _LEVELS.index("info"), _LEVELS.index("debug")

#: The least severe message of each component, where that is not a debug message.
_MOST_SEVERE = {"serverSelection": _INFO}

_JSON_OPTIONS = json_util.RELAXED_JSON_OPTIONS.with_options(uuid_representation=UuidRepresentation.STANDARD)


def _level(value: Any) -> int:
    """The place of a level in the list; a name in any case, or one of Twisted's levels."""
    name = getattr(value, "name", value)
    if not isinstance(name, str):
        raise TypeError(f"a log level must be a str or a twisted.logger.LogLevel, not {type(value)}")
    name = name.lower()
    if name not in _LEVELS:
        raise ValueError(f"a log level must be one of {', '.join(_LEVELS)}, not {value!r}")
    return _LEVELS.index(name)


def validate_levels(option: str, value: Any) -> dict[str, int]:
    """Check the ``log_levels`` option.

    :returns: places of levels by component; ``all`` may be among them.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise TypeError(f"{option} must be a mapping of components to levels, not {type(value)}")
    unknown = [str(component) for component in value if component not in (*_VARIABLES, "all")]
    if unknown:
        raise ValueError(f"{option}: no component {', '.join(unknown)}; there are {', '.join(_VARIABLES)} and all")
    return {component: _level(level) for component, level in value.items()}


def validate_length(option: str, value: Any) -> int:
    """Check the ``log_max_document_length`` option."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{option} must be an integer, not {type(value)}")
    if value < 0:
        raise ValueError(f"{option} must not be negative")
    return value


@attrs.frozen
class LogSettings:
    """What a client writes to the log.

    :ivar levels: by component the place of the least severe level that is wanted; components that are off are missing.
    :ivar max_document_length: characters of a document that are shown.
    """

    levels: Mapping[str, int] = attrs.field(factory=dict)
    max_document_length: int = DEFAULT_MAX_DOCUMENT_LENGTH

    def shows(self, component: str) -> bool:
        """Whether any message of a component is wanted."""
        return self.levels.get(component, 0) >= _MOST_SEVERE.get(component, _DEBUG)

    def log(self, component: str, topology_id: ObjectId) -> ComponentLog | None:
        """Where a client's component writes to; ``None`` if nobody wants to read it.

        :param topology_id: of the client's topology, by which its messages can be told from another client's.
        """
        if not self.shows(component):
            return None
        return ComponentLog(
            component,
            str(topology_id),
            debugs=self.levels[component] >= _DEBUG,
            max_document_length=self.max_document_length,
        )


def log_settings(options: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> LogSettings:
    """What the options of a client and the environment variables say together; options win.

    :param options: checked, under lower-case names.
    :param environment: ``os.environ`` if it is not given.
    """
    environment = os.environ if environment is None else environment
    given: Mapping[str, int] = options.get("log_levels") or {}
    for_all = given.get("all", _level_variable(environment, _ALL_VARIABLE))
    levels = {}
    for component, variable in _VARIABLES.items():
        level = given.get(component)
        if level is None and "all" not in given:
            level = _level_variable(environment, variable)
        level = for_all if level is None else level
        if level:
            levels[component] = level
    length = options.get("log_max_document_length")
    return LogSettings(levels, _length_variable(environment) if length is None else length)


def _level_variable(environment: Mapping[str, str], name: str) -> int | None:
    """The level that a variable sets; one that cannot be understood counts as not set."""
    value = environment.get(name)
    if not value:
        return None
    try:
        return _level(value)
    except ValueError:
        _log.warn("{variable} is not set to a log level and is ignored: {value!r}", variable=name, value=value)
        return None


def _length_variable(environment: Mapping[str, str]) -> int:
    value = environment.get(_LENGTH_VARIABLE)
    if not value:
        return DEFAULT_MAX_DOCUMENT_LENGTH
    try:
        return validate_length(_LENGTH_VARIABLE, int(value))
    except ValueError:
        _log.warn("{variable} is not set to a length and is ignored: {value!r}", variable=_LENGTH_VARIABLE, value=value)
        return DEFAULT_MAX_DOCUMENT_LENGTH


class Template:
    """A message: its name in the specification, and how its fields make a sentence.

    :ivar message: the specification's ``message``.
    :param segments: parts of the sentence in Twisted's format; one that names a field which is not there is left out.
    """

    __slots__ = ("_segments", "message")

    def __init__(self, message: str, *segments: str) -> None:
        self.message = message
        self._segments = tuple((segment, _names(segment)) for segment in segments)

    def format(self, fields: Mapping[str, Any]) -> str:
        """The format for these fields."""
        return "".join(segment for segment, names in self._segments if names <= fields.keys())


def _names(segment: str) -> frozenset[str]:
    return frozenset(name for _, name, _, _ in Formatter().parse(segment) if name)


class ComponentLog:
    """Writes the messages of one component of one client.

    An event has the specification's fields as keys, under their exact names, and ``topologyId``. Two more keys tell
    what it is: ``mongodb_component``, and ``mongodb_message``, which is ``message`` again: observers of the older
    :mod:`twisted.python.log` use that key for something else and overwrite it for those after them.

    :ivar debugs: whether debug messages are wanted, and not only those that are more severe.
    """

    __slots__ = ("_common", "_logger", "_max_document_length", "debugs")

    def __init__(self, component: str, topology_id: str, *, debugs: bool, max_document_length: int) -> None:
        self._common = {"mongodb_component": component, "topologyId": topology_id}
        self._logger = Logger(namespace=f"txmongo.{component}")
        self._max_document_length = max_document_length
        self.debugs = debugs

    def debug(self, template: Template, fields: Mapping[str, Any]) -> None:
        """Write a debug message. Fields that are ``None`` are left out."""
        if self.debugs:
            self._emit(LogLevel.debug, template, fields)

    def info(self, template: Template, fields: Mapping[str, Any]) -> None:
        """Write an informational message. Fields that are ``None`` are left out."""
        self._emit(LogLevel.info, template, fields)

    def document(self, document: Any) -> str:
        """A document as messages show it."""
        return document_text(document, self._max_document_length)

    def error(self, error: BaseException) -> str:
        """An error as messages show it: its type and its text, which may hold what the server answered."""
        text = f"{type(error).__name__}: {error}".rstrip(": ")
        return _shortened(text, self._max_document_length)

    def _emit(self, level: Any, template: Template, fields: Mapping[str, Any]) -> None:
        message = template.message
        present = {name: value for name, value in fields.items() if value is not None}
        present.update(self._common, message=message, mongodb_message=message)
        self._logger.emit(level, template.format(present), **present)


def address_fields(address: Address) -> dict[str, Any]:
    """The fields that name a server; a UNIX socket has no port."""
    return {"serverHost": address[0], "serverPort": address[1]}


def milliseconds(seconds: float) -> float:
    """A duration as messages show it."""
    return round(seconds * 1000, 3)


def document_text(document: Any, limit: int) -> str:
    """A document in relaxed extended JSON, cut after ``limit`` characters.

    However long the document is, not much more than what is shown is converted. What cannot be converted does no harm.
    """
    try:
        beginning, _ = _beginning(document, limit + 1)
        text = json_util.dumps(beginning, json_options=_JSON_OPTIONS, ensure_ascii=False, default=repr)
    except Exception as error:
        return f"<a document that cannot be shown: {type(error).__name__}>"
    return _shortened(text, limit)


def _shortened(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[:limit] + "..."


def _beginning(value: Any, room: int) -> tuple[Any, int]:
    """As much of a value as is needed for ``room`` characters of its JSON, and what is left of the room.

    What a part takes is estimated too low, never too high: what is left out then is beyond the room.
    """
    if isinstance(value, Mapping):
        room -= 1
        document = {}
        for key, item in value.items():
            if room <= 0:
                break
            document[key], room = _beginning(item, room - len(key) - 4)
        return document, room - 1
    if isinstance(value, list | tuple):
        room -= 1
        array = []
        for item in value:
            if room <= 0:
                break
            shown, room = _beginning(item, room)
            array.append(shown)
        return array, room - 1
    if type(value) is str:
        shown = value if len(value) <= room else value[: max(room, 0)]
        return shown, room - len(shown) - 2
    if isinstance(value, bytes):
        # Whole groups of three bytes, which base64 turns into four characters each.
        length = 3 * (max(room, 0) // 3 + 1)
        if len(value) > length and (not isinstance(value, Binary) or value.subtype != UUID_SUBTYPE):
            value = Binary(value[:length], value.subtype if isinstance(value, Binary) else 0)
        return value, room - len(value)
    return value, room - 1
