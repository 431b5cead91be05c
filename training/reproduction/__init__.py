"""The paper's ablations: its tables, the runs behind them, the figures beside the paper's."""
