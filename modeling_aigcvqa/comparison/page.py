"""The page of a comparison, which needs no other file."""

import html
from collections.abc import Sequence
from pathlib import Path
from string import Template

from ..names_aigcvqa import SCORES
from .compare import Board, Comparison
from .leaderboard import Place
from .pairs import ALPHA, POWER, Pair
from .words import difference, listed, neighbours, rank, told_apart, turned, verdict

HERE = Path(__file__).parent
MOST_PAIRS = 400  # rows of the table of all pairs; pairs.csv has all


def page_html(comparison: Comparison, model: str | None, note: str | None) -> str:
    """The page as HTML. `model` is the name of the model, `note` the one on its weights."""
    answers = comparison.answers
    quality = comparison.boards[SCORES[0]]
    template = Template((HERE / "page.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=html.escape(f"{len(answers.generators)} generators compared"),
        about=html.escape(
            f"{listed(answers.generators)}: {int(answers.clips.sum()):,} clips of {len(answers.prompts):,} prompts, "
            f"scored by {model or 'a model that no record names'}. "
            "Higher is better. Only the order and the differences mean something, and only for prompts like these."
        ),
        note=f'<p class="note" role="note">{html.escape(note)}</p>' if note else "",
        warnings="".join(f'<p class="note" role="alert">{html.escape(text)}</p>' for text in comparison.warnings),
        verdict=html.escape(verdict(quality, answers.generators)),
        leaderboard=_leaderboard(quality, answers.generators),
        neighbours=_pairs_table([turned(*found) for found in neighbours(quality)], answers.generators),
        deciding=_deciding(quality, comparison),
        categories=_categories(comparison),
        parts="".join(
            f"<details><summary>{name.removesuffix('_score')}: {html.escape(verdict(board, answers.generators))}"
            f"</summary>{_leaderboard(board, answers.generators)}</details>"
            for name, board in comparison.boards.items()
            if name != SCORES[0]
        )
        or "<p>The model has one branch.</p>",
        pairs=_all_pairs(quality, answers.generators),
        failed=_failed(answers.failed),
        method=html.escape(_method(comparison)),
    )


def _leaderboard(board: Board, names: Sequence[str]) -> str:
    ends = [end for place in board.places for end in (place.interval or (place.mean, place.mean))]
    low, high = (min(ends), max(ends)) if ends else (0.0, 1.0)
    rows = []
    for place in board.places:
        rows.append(
            f'<tr data-generator="{html.escape(names[place.generator])}"><td>{rank(place)}</td>'
            f"<th>{html.escape(names[place.generator])}</th><td>{place.mean:.2f}</td>"
            f"<td>{_bar(place, low, high)}</td><td>{_interval(place)}</td><td>{place.groups}</td>"
            f"<td>{place.prompts:,}</td></tr>"
        )
    head = "".join(
        f"<th{' class=text' if name in ('generator', '') else ''}>{name}</th>"
        for name in ("rank", "generator", "mean", "", "95 % interval", "group", "prompts")
    )
    note = "<p>Generators that share a letter of a group cannot be told apart.</p>"
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>{note}'


def _interval(place: Place) -> str:
    return f"{place.interval[0]:.2f} to {place.interval[1]:.2f}" if place.interval else "-"


def _bar(place: Place, low: float, high: float) -> str:
    """The mean as a dot in its interval, on the common scale of the table."""

    def percent(value: float) -> float:
        return 3 + 94 * (value - low) / (high - low) if high > low else 50.0

    start, end = (percent(value) for value in place.interval or (place.mean, place.mean))
    return (
        f'<span class="bar"><i style="left:{start:.1f}%;width:{end - start:.1f}%"></i>'
        f'<b style="left:{percent(place.mean):.1f}%"></b></span>'
    )


def _pairs_table(pairs: Sequence[Pair], names: Sequence[str]) -> str:
    rows = []
    for pair in pairs:
        wins = f"{pair.wins} of {pair.prompts}" + (f", {pair.ties} equal" if pair.ties else "")
        rows.append(
            f'<tr><td class="text">{html.escape(names[pair.first])} against {html.escape(names[pair.second])}</td>'
            f'<td class="text">{told_apart(pair)}</td>'
            f"<td>{difference(pair)}</td><td>{wins}</td><td>{pair.p_holm:.2g}</td></tr>"
        )
    head = (
        '<th class="text"></th><th class="text">told apart?</th><th>difference</th><th>first is better on</th>'
        "<th>p (Holm)</th>"
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _all_pairs(board: Board, names: Sequence[str]) -> str:
    shown = board.pairs[:MOST_PAIRS]
    left_out = "" if len(shown) == len(board.pairs) else f"<p>The first {MOST_PAIRS}; pairs.csv has all.</p>"
    turned_pairs = [turned(pair, (pair.difference or 0.0) < 0) for pair in shown]
    return (
        f"<details><summary>{len(board.pairs)} pairs</summary>{_pairs_table(turned_pairs, names)}{left_out}</details>"
    )


def _deciding(board: Board, comparison: Comparison) -> str:
    answers, pieces = comparison.answers, []
    for found in neighbours(board):
        pair = turned(*found)
        if not pair.deciding:
            continue
        quality = answers.scores[SCORES[0]]
        items = "".join(
            f"<li>{html.escape(answers.prompts[place])} "
            f"({quality[place, pair.first]:.2f} against {quality[place, pair.second]:.2f})</li>"
            for place in pair.deciding
        )
        number = "prompt" if pair.turned_by == 1 else "prompts"
        pieces.append(
            f"<details><summary>{html.escape(answers.generators[pair.first])} over "
            f"{html.escape(answers.generators[pair.second])}: turns without {pair.turned_by} {number} of {pair.prompts}"
            f"</summary><ol>{items}</ol></details>"
        )
    return "".join(pieces) or "<p>There are no leads.</p>"


def _categories(comparison: Comparison) -> str:
    """A table of generators by category; the best, and those that cannot be told from it, are bold."""
    if not comparison.categories:
        return ""
    names = comparison.answers.generators
    order = [place.generator for place in comparison.boards[SCORES[0]].places]
    heads, columns = [], []
    for name, board in comparison.categories.items():
        heads.append(f"<th>{html.escape(name)} ({board.prompts})</th>")
        columns.append({place.generator: place for place in board.places})
    rows = []
    for generator in order:
        cells = "".join(_category_cell(column.get(generator)) for column in columns)
        rows.append(f"<tr><th>{html.escape(names[generator])}</th>{cells}</tr>")
    return (
        "<h2>By category</h2><p>Mean quality, with the number of prompts. In bold those that no other generator can be "
        "told to beat.</p>"
        f'<div class="wide"><table><thead><tr><th class="text"></th>{"".join(heads)}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _category_cell(place: Place | None) -> str:
    if place is None:
        return "<td>-</td>"
    return f"<td{' class=best' if place.best_rank == 1 else ''}>{place.mean:.2f}</td>"


def _failed(failed: Sequence[dict[str, str]]) -> str:
    if not failed:
        return ""
    items = "".join(f"<li>{html.escape(entry['generator'])}: {html.escape(entry['error'])}</li>" for entry in failed)
    return f"<details><summary>{len(failed)} clips could not be scored</summary><ul>{items}</ul></details>"


def _method(comparison: Comparison) -> str:
    return (
        "Several clips of a generator for a prompt count with their mean. Intervals are Student's, over prompts. Pairs "
        f"are tested by Wilcoxon's signed-rank test on common prompts; the p-values of all {comparison.tests} pairs "
        f"and scores are corrected together by Holm's method, so that the chance of telling any two equal ones apart "
        f"is at most {ALPHA:.0%}. Categories are corrected among themselves. The prompts that are missing are those "
        f"that would tell the pair apart with probability {POWER:.0%} if the difference stays as it is; the estimate "
        "is rough."
    )
