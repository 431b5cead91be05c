"""The `evaluate` metric of the project. `evaluate.load` takes this folder; its files import each other alone."""
