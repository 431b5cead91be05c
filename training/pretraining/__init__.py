"""Pre-training of branches that start from random weights, and the recipe of the small model."""
