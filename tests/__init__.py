"""The tests of txmongo."""
