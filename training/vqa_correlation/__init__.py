"""The `evaluate` metric of the project: one file, vqa_correlation.py, so that the Hub can load it."""
