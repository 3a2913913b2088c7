"""Tests of the two older APIs, TxMongo 15.2's and 26.0's, name by name, against real servers.

They run on the server that :mod:`txmongo.testing` finds, and on MongoDB 4.4 and 5.0 too where ``TXMONGO_OLD_MONGODS``
names a folder with ``mongod-4.4`` and ``mongod-5.0`` in it: see :mod:`tests.compat.servers`.
"""
