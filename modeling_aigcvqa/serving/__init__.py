"""Scores over HTTP: the service behind `aigcvqa serve`, and its client."""
