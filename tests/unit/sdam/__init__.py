"""Tests of txmongo._sdam."""
