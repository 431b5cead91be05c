"""Format figures and tables as text."""

METRIC_TITLES = {"srocc": "SROCC", "plcc": "PLCC", "krocc": "KROCC", "rmse": "RMSE", "main_score": "main score"}


def markdown_table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table. In cells, | is escaped and line breaks become spaces."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    cells = (" | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in line) for line in lines)
    return "\n".join(f"| {line} |" for line in cells)


def figure_text(figure: dict | None, digits: int = 4) -> str:
    """Format {"value"}, with the interval if there are "low" and "high"; a dash if there is no value."""
    if not figure or figure.get("value") is None:
        return "-"
    value = f"{figure['value']:.{digits}f}"
    return value if figure.get("low") is None else f"{value} [{figure['low']:.3f}, {figure['high']:.3f}]"
