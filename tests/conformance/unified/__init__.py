"""A runner of the MongoDB unified test format.

``runner`` reads a case from top to bottom; ``entities`` makes what the case works on; ``operations`` calls the driver;
``special`` does what the case asks of the runner itself; ``matcher``, ``events``, ``logs`` and ``expected_errors``
judge; ``arguments`` and ``results`` translate between the format's documents and PyMongo's names and classes.
"""
