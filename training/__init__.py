"""Training, evaluation and checkpoint conversion of AIGC-VQA, run from a checkout."""
