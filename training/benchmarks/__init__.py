"""Speed of scoring and of training, and how well word scores find what is wrong."""
