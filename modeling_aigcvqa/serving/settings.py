"""The settings of a service. They reach its processes in an environment variable, as JSON."""

import json
import os
from dataclasses import asdict, dataclass

from ..clip_scorer import ScorerSettings

VARIABLE = "AIGCVQA_SERVICE"
TOKEN_VARIABLE = "AIGCVQA_TOKEN"


@dataclass(frozen=True)
class ServiceSettings:
    """What a service loads and accepts.

    Args:
        scorer: what each process loads. `batch_size` is the most clips per pass on a GPU, of one or several requests.
        workers: processes behind the port. Several GPUs are shared out among them.
        max_wait: seconds that a clip waits for others to be scored with it.
        max_queue: clips per process that may wait; a request beyond is refused with status 429.
        max_body: bytes of a request.
        max_open: bytes of all requests that a process holds; a request beyond is refused with status 429.
    """

    scorer: ScorerSettings
    workers: int = 1
    max_wait: float = 0.005
    max_queue: int = 64
    max_body: int = 512 * 2**20
    max_open: int = 2 * 2**30

    def __post_init__(self) -> None:
        for name in ("workers", "max_queue", "max_body", "max_open"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: expected at least 1.")
        if self.max_wait < 0:
            raise ValueError(f"max_wait={self.max_wait}: expected at least 0.")

    def to_environment(self) -> None:
        os.environ[VARIABLE] = json.dumps(asdict(self))

    @classmethod
    def from_environment(cls) -> "ServiceSettings":
        values = json.loads(os.environ[VARIABLE])
        return cls(**{**values, "scorer": ScorerSettings(**values["scorer"])})
