"""Code that several parts of the installed package share: files, manifests, the console, presets of models."""
