"""Scores of models, baselines and other metrics against MOS, on the same terms."""
