"""The parts of :mod:`txmongo.testing`; import them from there.

One file per thing: ``guard`` (the process that outlives a test run just long enough to clean up after it), ``den``
(our end of it), ``binary`` (where mongod comes from), ``mongod``, ``replica_set``, ``certificates``, ``fake_server``,
``fault_proxy``, ``memory`` (connections without a network).
Nothing here is imported by the driver.
"""
