"""The suites: which folders of the specification tests, and which test modules run those of other formats."""

from __future__ import annotations

__all__ = ["KINDS", "MODULES", "OF_THE_RUNNER", "OWN_FORMATS", "REUSE", "STAND_IN", "UNIFIED", "class_name"]

#: Suites in the unified format.
UNIFIED = (
    "crud/unified",
    "retryable_reads/unified",
    "retryable_writes/unified",
    "transactions/unified",
    "transactions-convenient-api/unified",
    "csot",
    "client-backpressure",
    "change_streams/unified",
    "sessions",
    "causal_consistency",
    "command_monitoring",
    "command_logging",
    "connection_logging",
    "server_selection_logging",
    "discovery_and_monitoring/unified",
    "gridfs",
    "versioned-api",
    "read_write_concern/operation",
    "read_write_concern/write-concern-errors",
    "run_command/unified",
    "collection_management",
    "index_management",
    "handshake/unified",
    "load_balancer",
    "client-side-encryption/spec/unified",
    "unified-test-format/valid-pass",
    "unified-test-format/valid-fail",
)

#: Suites in formats of their own, by the module that runs them. They test the driver's own code.
OWN_FORMATS = {
    "connection_monitoring": "tests.conformance.test_cmap",
    "discovery_and_monitoring/errors": "tests.conformance.test_sdam_errors",
    "sdam_monitoring": "tests.conformance.test_sdam_monitoring",
    "server_selection/in_window": "tests.conformance.test_in_window",
    "srv_seedlist": "tests.conformance.test_srv_seedlist",
}

#: Suites in formats of their own that mostly prove the plumbing around PyMongo's pure modules.
REUSE = {
    "discovery_and_monitoring": "tests.conformance.test_sdam",
    "server_selection/server_selection": "tests.conformance.test_server_selection",
    "max_staleness": "tests.conformance.test_max_staleness",
    "server_selection/rtt": "tests.conformance.test_rtt",
    "connection_string": "tests.conformance.test_connection_string",
    "uri_options": "tests.conformance.test_uri_options",
    "auth": "tests.conformance.test_auth",
    "read_write_concern/connection-string": "tests.conformance.test_concern_uris",
    "read_write_concern/document": "tests.conformance.test_concern_documents",
}


#: Cases of several suites that want a newer server, against one that stands in for it.
STAND_IN = {"stand-in": "tests.conformance.test_stand_in"}

#: No suites of the specifications, but tests of the running of them.
OF_THE_RUNNER = {
    "runner/bookkeeping": "tests.conformance.test_bookkeeping",
    "runner/mutations": "tests.conformance.test_mutations",
}

#: The test modules of all but the unified suites.
MODULES = OWN_FORMATS | STAND_IN | REUSE | OF_THE_RUNNER

#: Every suite, in the order of the table, and its kind.
KINDS = {
    **dict.fromkeys(UNIFIED, "unified"),
    **dict.fromkeys(OWN_FORMATS, "own format"),
    **dict.fromkeys(STAND_IN, "stand-in"),
    **dict.fromkeys(REUSE, "reuse"),
    **dict.fromkeys(OF_THE_RUNNER, "of the runner"),
}


def class_name(suite: str) -> str:
    """The name of the test case class of a suite in the unified format."""
    words = suite.replace("/", " ").replace("-", " ").replace("_", " ").split()
    return "".join(word[0].upper() + word[1:] for word in words)
