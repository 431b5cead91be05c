"""What comes before the stages where weights are random, and the recipe of the small model."""
