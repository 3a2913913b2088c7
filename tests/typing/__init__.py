"""Samples of code that uses the driver, for mypy alone: they are checked, never run."""
