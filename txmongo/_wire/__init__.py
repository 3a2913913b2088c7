"""The MongoDB wire protocol as bytes and values, without I/O.

``header`` names the opcodes and the header that every message shares; ``op_msg``, ``op_compressed`` and ``op_legacy``
each hold one message format; ``decoder`` cuts a stream of bytes into messages; ``arriving`` decodes large batches while
they come. What comes from the other side is
checked here: bad bytes give :class:`pymongo.errors.ProtocolError` and never another exception.

Nothing in this package knows of sockets, of Deferreds or of the meaning of a command.
"""
