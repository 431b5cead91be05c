"""Write, check and push the Hub repository of a model."""
