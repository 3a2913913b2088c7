"""What the suites about URIs share: warnings, files, and the reading of settings."""

from __future__ import annotations

import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txmongo._settings import ClientSettings
from txmongo._wire.op_compressed import compressor_named
from txmongo.testing import CertificateAuthority

__all__ = ["READ", "URITestCase"]


def _ms(seconds: float | None) -> float:
    return 0 if seconds is None else round(seconds * 1000, 6)


#: How each option of the tests, in lower case, is read back from the settings.
READ: dict[str, Callable[[ClientSettings], Any]] = {
    "appname": lambda s: s.app_name,
    "authmechanism": lambda s: s.credentials and s.credentials.mechanism,
    "authmechanismproperties": lambda s: s.options["authmechanismproperties"],
    "authsource": lambda s: s.credentials and s.credentials.source,
    "compressors": lambda s: list(s.compressors),
    "connecttimeoutms": lambda s: _ms(s.connect_timeout),
    "directconnection": lambda s: s.direct_connection,
    "enableoverloadretargeting": lambda s: s.enable_overload_retargeting,
    "heartbeatfrequencyms": lambda s: _ms(s.heartbeat_frequency),
    "journal": lambda s: s.write_concern.document.get("j"),
    "loadbalanced": lambda s: s.load_balanced,
    "localthresholdms": lambda s: s.local_threshold_ms,
    "maxadaptiveretries": lambda s: s.max_adaptive_retries,
    "maxconnecting": lambda s: s.max_connecting,
    "maxidletimems": lambda s: _ms(s.max_idle_time),
    "maxpoolsize": lambda s: 0 if s.max_pool_size == sys.maxsize else s.max_pool_size,
    "maxstalenessseconds": lambda s: s.read_preference.max_staleness,
    "minpoolsize": lambda s: s.min_pool_size,
    "readconcernlevel": lambda s: s.read_concern.level,
    "readpreference": lambda s: s.read_preference.mongos_mode,
    "readpreferencetags": lambda s: list(s.read_preference.tag_sets),
    "replicaset": lambda s: s.replica_set_name,
    "retrywrites": lambda s: s.retry_writes,
    "servermonitoringmode": lambda s: s.server_monitoring_mode,
    "serverselectiontimeoutms": lambda s: _ms(s.server_selection_timeout),
    "serverselectiontryonce": lambda s: s.options["serverselectiontryonce"],
    "sockettimeoutms": lambda s: _ms(s.socket_timeout),
    "srvmaxhosts": lambda s: s.srv_max_hosts,
    "srvservicename": lambda s: s.srv_service_name,
    "timeoutms": lambda s: _ms(s.timeout),
    "tls": lambda s: s.tls is not None,
    "tlsallowinvalidcertificates": lambda s: s.options["tlsallowinvalidcertificates"],
    "tlsallowinvalidhostnames": lambda s: s.options["tlsallowinvalidhostnames"],
    "tlscafile": lambda s: s.tls and s.tls.trusted and s.options["tlscafile"],
    "tlscertificatekeyfile": lambda s: s.tls and s.tls.client_certificate and s.options["tlscertificatekeyfile"],
    "tlscertificatekeyfilepassword": lambda s: s.options["tlscertificatekeyfilepassword"],
    "tlsdisablecertificaterevocationcheck": lambda s: s.options["tlsdisablecertificaterevocationcheck"],
    "tlsdisableocspendpointcheck": lambda s: s.options["tlsdisableocspendpointcheck"],
    "tlsinsecure": lambda s: s.options["tlsinsecure"],
    "w": lambda s: s.write_concern.document.get("w"),
    "wtimeoutms": lambda s: s.write_concern.document.get("wtimeout"),
    "zlibcompressionlevel": lambda s: s.zlib_compression_level,
}


class URITestCase(SynchronousTestCase):
    """Compares what was read from a URI with what a test expects."""

    def in_folder_with_certificates(self) -> None:
        """Work, for this test, where ``ca.pem`` and ``cert.pem`` are: tests name them without a path."""
        authority = CertificateAuthority(self.mktemp())
        shutil.copy(authority.client(), authority.folder / "cert.pem")
        before = os.getcwd()
        self.addCleanup(os.chdir, before)
        os.chdir(authority.folder)

    def skip_without_compressors(self, test: dict[str, Any]) -> None:
        """Skip a test of a compressor that is not installed here: naming it is then warned of."""
        for name in (test.get("options") or {}).get("compressors", ()):
            if compressor_named(name) is None:
                self.skipTest(f"the compressor {name} is not installed")

    @contextmanager
    def warned(self, expected: bool) -> Iterator[None]:
        """See that a warning is given, or that none is."""
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            yield
        texts = [str(warning.message) for warning in seen if warning.category is UserWarning]
        self.assertEqual(bool(texts), expected, texts)

    def check_options(self, settings: ClientSettings, expected: dict[str, Any]) -> None:
        """Every option that the test names came through to the settings."""
        for name, value in expected.items():
            self.assertEqual(READ[name.lower()](settings), value, name)
