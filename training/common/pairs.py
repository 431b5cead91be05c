"""Load human preferences between two clips of one prompt, as the preparers of `dataset_scripts` write them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from datasets import Dataset, concatenate_datasets, get_dataset_config_names, load_dataset

from .arguments import PREFERENCE
from .clips import cache_of, load_splits, rows_of_part

CONFIG = "pairs"
CODES = {"A": 1, "B": -1, "tie": 0}


@dataclass(frozen=True)
class Pairs:
    """Pairs of clips with preferences.

    Args:
        clips: the clips that occur in a pair, as `load_clips` gives them; their `mos` may be None.
        places: places (N, 2) of the clips A and B of each pair in `clips`.
        preferences: (N,) by column: 1 for A, -1 for B, 0 for a tie, NaN where there is none.
    """

    clips: Dataset
    places: np.ndarray
    preferences: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.places)

    def some(self, number: int | None, seed: int) -> "Pairs":
        """`number` of the pairs, drawn with the seed and kept in order, and their clips; None for all."""
        if number is None or number >= len(self):
            return self
        kept = sorted(np.random.default_rng(seed).choice(len(self), number, replace=False).tolist())
        return _of_places(self.clips, self.places[kept], {name: code[kept] for name, code in self.preferences.items()})


def has_pairs(data: str) -> bool:
    """Whether a data set has preferences."""
    return CONFIG in get_dataset_config_names(data)


def load_pairs(data: str, split_file: str | Path | None = None, part: str | None = None) -> Pairs:
    """The preferences of a data set. A pair belongs to a part if both of its clips do.

    Args:
        data, split_file, part: as in `load_clips`.

    Raises:
        ValueError: if the data set has no preferences, if a pair names a clip that is missing, or if no pair is left;
            names the data set.
    """
    if not has_pairs(data):
        raise ValueError(f"'{data}' has no preferences (no configuration {CONFIG!r}).")
    tables = load_dataset(data, CONFIG, cache_dir=cache_of(Path(data)) if Path(data).is_dir() else None)
    splits = load_splits(data)
    clips = concatenate_datasets(list(splits.values()))
    videos = [name for name in next(iter(tables.values())).column_names if name.startswith("video")]
    pairs = concatenate_datasets([table.remove_columns(videos) for table in tables.values()]).to_pandas()
    place = {clip_id: index for index, clip_id in enumerate(clips["id"])}
    unknown = [name for column in ("id_a", "id_b") for name in pairs[column] if name not in place]
    if unknown:
        raise ValueError(f"'{data}' has a pair with the clip {unknown[0]!r}, which it lacks; prepare it again.")
    chosen = set(rows_of_part(splits, data, split_file, part)["id"])
    pairs = pairs[pairs["id_a"].isin(chosen) & pairs["id_b"].isin(chosen)]
    columns = [name for name in pairs if name.startswith(PREFERENCE)]
    codes = {name: pairs[name].map(CODES).to_numpy(float) for name in columns}
    kept = ~np.isnan(np.stack(list(codes.values()))).all(0)
    if not kept.any():
        raise ValueError(f"'{data}' has no preference between two clips of part {part or 'all'!r}.")
    places = pairs[["id_a", "id_b"]].map(place.get).to_numpy()[kept]
    return _of_places(clips, places, {name: code[kept] for name, code in codes.items()})


def _of_places(clips: Dataset, places: np.ndarray, preferences: dict[str, np.ndarray]) -> Pairs:
    """Pairs of clips at `places` (N, 2) of `clips`; clips in no pair are left out."""
    used, renumbered = np.unique(places, return_inverse=True)
    return Pairs(clips.select(used), renumbered.reshape(places.shape), preferences)
