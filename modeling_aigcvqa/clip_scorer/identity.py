"""What scores depend on besides the clip, and the id of a clip's scores."""

import hashlib
import json
from dataclasses import dataclass

from .._version import __version__
from .settings import ScorerSettings

HEX_DIGITS = 32  # of ids and fingerprints: 128 bits


@dataclass(frozen=True)
class ScorerIdentity:
    """What the scores of a scorer depend on besides the clip.

    Attributes:
        model_sha256: digest of the weights, config, processor and tokenizer.
        model_revision: commit of a model on the Hub, or the digest of a folder.
        options: version of the package, branches, dtype, number of frames of the alignment branch, `on_damage`.
        weights_note: what the weights are not good for, of the config; None if there is nothing to say.
        requires_prompt: whether a clip without a prompt is an error.
    """

    model_sha256: str
    model_revision: str
    options: dict
    weights_note: str | None
    requires_prompt: bool

    @classmethod
    def of(cls, settings: ScorerSettings) -> "ScorerIdentity":
        """The identity of a scorer with these settings. Reads the files of the model, but does not load the weights."""
        from ..loading import load_processor, model_source  # PyTorch; an identity alone does not need it
        from ..loading.identity import digest_of_model, revision_of_model

        config, processor = load_processor(**settings.what_is_built)
        config.check_scale(settings.scale)
        source = model_source(settings.model)
        digest = digest_of_model(source)
        options = {
            "aigcvqa": __version__,
            "branches": list(config.branches),
            "dtype": settings.dtype,
            "alignment_num_frames": settings.alignment_num_frames,
            "on_damage": settings.on_damage,
            **({"scale": True} if settings.scale else {}),
        }
        revision = revision_of_model(source, digest)
        return cls(digest, revision, options, config.weights_note, processor.requires_prompt)

    @property
    def options_fingerprint(self) -> str:
        """Digest of the options."""
        return _digest(self.options)


def clip_id(file: str, prompt: str | None, identity: ScorerIdentity) -> str:
    """The id of a clip's scores: a digest of file, prompt, model and options.

    Args:
        file: name of the file, or for a clip that has no file the SHA-256 of its bytes.
    """
    return _digest([file, prompt, identity.model_sha256, identity.options_fingerprint])


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:HEX_DIGITS]
