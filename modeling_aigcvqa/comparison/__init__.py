"""Compare generators by the scores of their clips: who is better, on which prompts, and can it be told at all."""
