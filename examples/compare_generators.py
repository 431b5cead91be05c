"""Who is better? Compares the generators in a file of scores, by each score.

    aigcvqa score --manifest clips.csv --output scores.csv      # clips.csv has the columns file, prompt and generator
    python examples/compare_generators.py scores.csv

`aigcvqa compare --manifest scores.csv --output report` writes the whole comparison: ranks, intervals, tests, categories
and the prompts that decide.
"""

import sys
from pathlib import Path

from modeling_aigcvqa.comparison.answers import gathered
from modeling_aigcvqa.comparison.compare import compare
from modeling_aigcvqa.comparison.words import verdict
from modeling_aigcvqa.scoring.score_table import read_score_table

path = Path(sys.argv[1])
table = read_score_table(path) or sys.exit(f"'{path}' holds no scores; `aigcvqa score` writes them.")
comparison = compare(gathered([(path, table)]))
for score, board in comparison.boards.items():
    print(f"{score}: {verdict(board, comparison.answers.generators)}")
    for place in board.places:
        print(f"  {comparison.answers.generators[place.generator]}: {place.mean:.2f} (group {place.groups})")
print(*comparison.warnings, sep="\n")
