"""The project's `evaluate` metric, loaded from this folder by `evaluate.load`. Its files import only each other."""
