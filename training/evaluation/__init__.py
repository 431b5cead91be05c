"""Evaluation of models, baselines and other metrics on the same clips, with the same figures."""
