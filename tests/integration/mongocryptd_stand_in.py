"""A process in the place of mongocryptd, which is a part of MongoDB Enterprise: it marks each field ``ssn``.

It listens on a UNIX socket. It ends when it is told to, when nobody has asked it anything for a while, or when the
tests do: with their process, and with the folder of the socket. As a script::

    mongocryptd_stand_in.py --socket=PATH --key=HEX --idleShutdownTimeoutSecs=60
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from typing import Any

import bson
from bson.binary import Binary
from twisted.internet import reactor as global_reactor
from twisted.internet.protocol import Factory
from twisted.internet.task import LoopingCall

from txmongo.testing import FakeServer

#: What a command has beside its own fields.
_OWN = ("$db", "jsonSchema", "isRemoteSchema")


class Marks:
    """Marks what is to be encrypted.

    :ivar key_id: of the data key that it is to be encrypted with.
    """

    def __init__(self, key_id: Binary) -> None:
        self.key_id = key_id

    def marked(self, command: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a command."""
        result = {name: self.mark(value) for name, value in command.items() if name not in _OWN}
        return {"hasEncryptionPlaceholders": True, "schemaRequiresEncryption": True, "result": result}

    def mark(self, value: Any) -> Any:
        """A value in which each ``ssn`` is marked."""
        if isinstance(value, dict):
            return {
                name: Binary(b"\0" + bson.encode({"a": 1, "ki": self.key_id, "v": each}), 6)
                if name == "ssn" and isinstance(each, str)
                else self.mark(each)
                for name, each in value.items()
            }
        return [self.mark(each) for each in value] if isinstance(value, list) else value


class StandIn:
    """The process."""

    def __init__(self, reactor: Any, arguments: argparse.Namespace) -> None:
        self._reactor = reactor
        self._seconds: float = arguments.idleShutdownTimeoutSecs
        self._idle = reactor.callLater(self._seconds, reactor.stop)
        marks = Marks(Binary(bytes.fromhex(arguments.key), 4))
        self.server = FakeServer({"shutdown": self.shut_down, "whoAreYou": self.tell})
        for name in ("insert", "find"):
            self.server.answer(name, lambda command: self.work(marks.marked(command)))
        self._parent, self._folder = os.getppid(), os.path.dirname(arguments.socket)
        LoopingCall(self.look).start(0.5)
        reactor.listenUNIX(arguments.socket, Factory.forProtocol(self.server._accept))

    def look(self) -> None:
        """Whether the tests go on."""
        if os.getppid() != self._parent or not os.path.isdir(self._folder):
            os._exit(0)

    def work(self, answer: Any) -> Any:
        """It is not idle."""
        self._idle.reset(self._seconds)
        return answer

    def shut_down(self, command: Mapping[str, Any]) -> dict[str, Any]:
        """End."""
        self._reactor.callLater(0, self._reactor.stop)
        return {}

    def tell(self, command: Mapping[str, Any]) -> dict[str, Any]:
        """What it was started with."""
        return {"pid": os.getpid(), "arguments": sys.argv[1:], "null": [_is_null(fd) for fd in range(3)]}


def _is_null(fd: int) -> bool:
    return os.path.samestat(os.fstat(fd), os.stat(os.devnull))


def main() -> None:
    """Run it until it ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket", required=True)
    parser.add_argument("--key", required=True)
    parser.add_argument("--idleShutdownTimeoutSecs", type=float, required=True)
    reactor: Any = global_reactor
    StandIn(reactor, parser.parse_args())
    reactor.run()


if __name__ == "__main__":
    main()
