"""Give a model a scale: percentiles among reference clips, and a curve from its quality to mean opinion scores."""
