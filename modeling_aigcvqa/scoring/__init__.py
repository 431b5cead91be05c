"""Score many clips: the rows to score, and a file of scores that an interrupted run goes on with."""
