"""Benchmarks: speed of scoring and of training, and how well word scores find wrong words."""
