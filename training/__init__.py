"""Training, evaluation, conversion and publishing of AIGC-VQA models, run from a checkout."""
