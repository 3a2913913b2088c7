"""The parts of :mod:`txmongo.sessions`."""
