"""A Hub repository of a model: written, checked, pushed."""
