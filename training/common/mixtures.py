"""Batches from several data sets. Each batch comes from one of them, so that the losses never compare two data sets."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.utils.data import Dataset, Sampler

from modeling_aigcvqa import AIGCVQAProcessor

from .batches import ClipDataset
from .pairs import Pairs

MIXING = 2**32 - 1  # key of the random order of the batches, beside the numbers of the data sets


class PairDataset(Dataset):
    """The clips of pairs as samples: A and B of the first pair, A and B of the second, and so on.

    The label of a score is the preference, 1 for A, -1 for B, 0 for a tie, on both clips of a pair. It is NaN where
    there is none, and where another clip took the place of one that cannot be read.

    Args:
        clips: samples of the clips, without labels.
        pairs: their pairs.
        columns: column of the preferences of each score.
    """

    def __init__(self, clips: ClipDataset, pairs: Pairs, columns: dict[str, str]):
        self.clips, self.pairs, self.columns = clips, pairs, columns

    @property
    def processor(self) -> AIGCVQAProcessor:
        return self.clips.processor

    def __len__(self) -> int:
        return self.pairs.places.size

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        epoch, index = key
        place = int(self.pairs.places.flat[index])
        sample = self.clips[(epoch, place)]
        is_wanted = sample["index"] == place
        labels = {
            score: float(self.pairs.preferences[column][index // 2]) if is_wanted else float("nan")
            for score, column in self.columns.items()
        }
        return sample | {"labels": labels}


class Mixture(Dataset):
    """Several data sets as one. The key of an item is `(epoch, source, index)`; the sample also has its `source`."""

    def __init__(self, datasets: Sequence[Dataset]):
        self.datasets = list(datasets)

    @property
    def processor(self) -> AIGCVQAProcessor:
        return self.datasets[0].processor

    def __len__(self) -> int:
        return sum(len(dataset) for dataset in self.datasets)

    def __getitem__(self, key: tuple[int, int, int]) -> dict[str, Any]:
        epoch, source, index = key
        return self.datasets[source][(epoch, index)] | {"source": source}


@dataclass(frozen=True)
class Share:
    """What a data set gives to an epoch.

    Args:
        num_items: number of its clips or pairs.
        clips_per_item: 1, or 2 for pairs.
        weight: how often the data set is seen in an epoch; 0.5 is half of it, another half in every epoch.
    """

    num_items: int
    clips_per_item: int = 1
    weight: float = 1.0


class MixedBatchSampler(Sampler):
    """One process's share of every global batch, as `(epoch, source, index)`, in an order fixed by seed and epoch.

    The global batches, of all processes together, do not depend on the number of processes. An incomplete last batch
    of a data set is dropped. `start_batch` skips batches without reading them, to resume in the middle of an epoch.
    """

    def __init__(self, shares: Sequence[Share], batch_size: int, seed: int, rank: int, num_processes: int):
        self.shares, self.batch_size, self.seed = list(shares), batch_size, seed
        self.own = slice(rank * batch_size // num_processes, (rank + 1) * batch_size // num_processes)
        self.epoch = self.start_batch = 0

    def __iter__(self) -> Iterator[list[tuple[int, int, int]]]:
        batches = [(source, batch) for source in range(len(self.shares)) for batch in self._batches_of(source)]
        if len(self.shares) > 1:
            order = np.random.default_rng([self.seed, self.epoch, MIXING]).permutation(len(batches))
            batches = [batches[place] for place in order]
        for source, batch in batches[self.start_batch :]:
            yield [(self.epoch, source, int(index)) for index in batch[self.own]]

    def __len__(self) -> int:
        return self.batches_per_epoch - self.start_batch

    @property
    def batches_per_epoch(self) -> int:
        return sum(self._number(share) for share in self.shares)

    def _items_per_batch(self, share: Share) -> int:
        return self.batch_size // share.clips_per_item

    def _number(self, share: Share) -> int:
        """The number of batches that a data set gives to an epoch, at least 1."""
        return max(1, int(share.weight * share.num_items / self._items_per_batch(share)))

    def _batches_of(self, source: int) -> list[np.ndarray]:
        """The indices (batch_size,) of the clips of each batch of a data set."""
        share = self.shares[source]
        size, number = self._items_per_batch(share), self._number(share)
        items = self._order(source, number * size).reshape(number, size)
        clips = items[..., None] * share.clips_per_item + np.arange(share.clips_per_item)
        return list(clips.reshape(number, -1))

    def _order(self, source: int, wanted: int) -> np.ndarray:
        """`wanted` items of a data set in random order, in several passes if there are fewer."""
        passes = -(-wanted // self.shares[source].num_items)
        keys = ([self.seed, self.epoch] + [source, number] * bool(source or number) for number in range(passes))
        orders = [np.random.default_rng(key).permutation(self.shares[source].num_items) for key in keys]
        return np.concatenate(orders)[:wanted]
