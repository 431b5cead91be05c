"""The version, apart from imports so that building needs none."""

__version__ = "0.1.0"
