"""Thin adapters for other projects' engines."""
