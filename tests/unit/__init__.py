"""Unit tests: no socket, no real time."""
