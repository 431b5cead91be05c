"""Figures and tables as text."""

METRIC_TITLES = {"srocc": "SROCC", "plcc": "PLCC", "krocc": "KROCC", "rmse": "RMSE", "main_score": "main score"}


def markdown_table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; a cell's | and line breaks are escaped."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    cells = (" | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in line) for line in lines)
    return "\n".join(f"| {line} |" for line in cells)


def figure_text(figure: dict | None, digits: int = 4) -> str:
    """A figure, {"value"} and maybe {"low", "high"}, with its interval; a dash where it has no value."""
    if not figure or figure.get("value") is None:
        return "-"
    value = f"{figure['value']:.{digits}f}"
    return value if figure.get("low") is None else f"{value} [{figure['low']:.3f}, {figure['high']:.3f}]"
