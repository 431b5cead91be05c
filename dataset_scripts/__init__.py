"""Scripts that turn quality datasets into folders that `datasets.load_dataset` reads, and make splits of them."""
