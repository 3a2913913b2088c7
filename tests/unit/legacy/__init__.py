"""Tests of ``txmongo._legacy``: what the arguments and results of the older APIs mean."""
