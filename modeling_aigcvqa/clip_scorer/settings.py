"""The settings of a scorer: what is loaded, and how it computes."""

from dataclasses import dataclass

from ..common.choices import SHIPPED
from ..names_aigcvqa import ON_DAMAGE


@dataclass(frozen=True)
class ScorerSettings:
    """What a scorer loads and how it computes. It can be pickled and sent to other machines.

    Args:
        model, branches, device, dtype, alignment_num_frames: as of `load_pipeline`.
        on_damage: damaged videos: "raise" for an error, "warn" for scores of the frames that are there.
        scale: whether to give percentiles too, as of the pipeline.
        batch_size: clips per pass on a GPU. On a CPU, every clip is a pass of its own: that is as fast, and its scores
            do not depend on its neighbours.
        threads: CPU threads of the process; None leaves what PyTorch has. The last digits of a score depend on it.

    Raises:
        ValueError: for a value that is out of range; names it.
    """

    model: str = SHIPPED
    branches: tuple[str, ...] | None = None
    device: str = "auto"
    dtype: str | None = None
    alignment_num_frames: int | None = None
    on_damage: str = "raise"
    scale: bool = False
    batch_size: int = 1
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.branches is not None:
            object.__setattr__(self, "branches", tuple(self.branches))
        if self.on_damage not in ON_DAMAGE:
            raise ValueError(f"on_damage={self.on_damage!r}: expected one of {list(ON_DAMAGE)}.")
        for name, value in (("batch_size", self.batch_size), ("threads", self.threads)):
            if value is not None and value < 1:
                raise ValueError(f"{name}={value}: expected at least 1.")

    @property
    def what_is_built(self) -> dict:
        """The arguments that `load_pipeline` and `load_processor` share."""
        branches = None if self.branches is None else list(self.branches)
        return {"model": self.model, "branches": branches, "alignment_num_frames": self.alignment_num_frames}
