"""Real MongoDB servers for tests: started on the spot, gone with the test run.

:class:`Mongod` is a standalone server, :class:`ReplicaSet` a replica set; both are found and started by
:func:`find_mongod`'s rules, on free ports of the loopback interface, their data in temporary folders. Whatever ends the
process that started them, SIGKILL included, also ends them and removes their data.
:class:`CertificateAuthority` makes the files for TLS. :class:`FakeServer` answers by a script, :class:`FaultProxy`
makes the network misbehave, both over the loopback interface or in memory on a fake clock.
"""

from __future__ import annotations

from txmongo._testing.binary import MongodNotFound, find_mongod
from txmongo._testing.certificates import CertificateAuthority
from txmongo._testing.den import NotInTime
from txmongo._testing.fake_server import HELLO, Answer, Behaviour, FakeServer, ReceivedCommand
from txmongo._testing.fault_proxy import Direction, FaultProxy
from txmongo._testing.mongod import Mongod, MongodFailed, TLSFiles
from txmongo._testing.replica_set import ReplicaSet

__all__ = [
    "HELLO",
    "Answer",
    "Behaviour",
    "CertificateAuthority",
    "Direction",
    "FakeServer",
    "FaultProxy",
    "Mongod",
    "MongodFailed",
    "MongodNotFound",
    "NotInTime",
    "ReceivedCommand",
    "ReplicaSet",
    "TLSFiles",
    "find_mongod",
]
