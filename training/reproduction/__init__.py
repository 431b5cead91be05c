"""Reproduction of the paper's ablation tables: the runs that a table needs, and our figures beside the paper's."""
