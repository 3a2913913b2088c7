"""Hands over to pyproject.toml, for tools that still ask for a setup.py."""

from setuptools import setup

setup()
