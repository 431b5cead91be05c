"""Score batches of clips with one plain class, for any engine that maps a function over batches."""

from typing import TYPE_CHECKING, Any

from .identity import ScorerIdentity, clip_id
from .settings import ScorerSettings

if TYPE_CHECKING:
    from .reader import ClipReader
    from .scorer import ClipScorer

__all__ = ["ClipReader", "ClipScorer", "ScorerIdentity", "ScorerSettings", "clip_id"]


def __getattr__(name: str) -> Any:
    """The classes that need PyTorch are imported when they are first used (PEP 562): who reads manifests does not."""
    if name == "ClipReader":
        from .reader import ClipReader as value
    elif name == "ClipScorer":
        from .scorer import ClipScorer as value
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value
