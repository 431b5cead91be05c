"""Probes: what a model notices, what fools it, and how steady its scores are. They need no label."""
