"""Build a model folder from published checkpoints, one per branch."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from ..common.files import check_new_folder, whole_folder, write_json
from ..common.presets import default_processor, save_model_folder
from ..configuration_aigcvqa import BRANCHES, AIGCVQAConfig
from ..modeling_aigcvqa import AIGCVQAModel
from ..provenance_aigcvqa import Provenance, Source
from .formats import CheckpointError, CheckpointFormat, Conversion, convert_state, recognise
from .reading import read_checkpoint
from .sources import fetch_all, sha256_of

REPORT = "conversion.json"
CARD = """---
{license}
library_name: transformers
pipeline_tag: video-classification
tags: [video-quality-assessment, text-to-video]
---

# AIGC-VQA, assembled from published weights

{note}

Scores are z-scores of the published metrics where those publish their constants (see `score_scale` and `score_shift` in
config.json), so that the branches add up on one scale.

| branches | source | licence | SHA-256 |
| --- | --- | --- | --- |
{sources}

`{report}` accounts for every key of every source.
"""


@dataclass
class BranchSource:
    """The checkpoint that a branch was read from, and the account of its keys."""

    branch: str
    address: str
    sha256: str
    format: CheckpointFormat
    conversion: Conversion

    def report(self) -> dict:
        """The entry in conversion.json."""
        return {
            "branch": self.branch,
            "source": self.address,
            "sha256": self.sha256,
            "format": self.format.name,
            "license": self.format.license,
            "affine": self.format.affine.get(self.branch, (1.0, 0.0)),
            "used": self.conversion.used,
            "unused": self.conversion.unused,
            "untrained": self.conversion.untrained,
        }


def convert(
    addresses: dict[str, str],
    output: Path,
    seed: int = 0,
    licenses: dict[str, str] | None = None,
    say: Callable[[str], None] = print,
) -> AIGCVQAModel:
    """Write a model folder from published checkpoints, atomically.

    Args:
        addresses: branch -> checkpoint, in the forms of `sources.Address`. Branches without a checkpoint are left out.
        output: new folder for weights, processor, code, README.md and conversion.json.
        seed: seed of the parameters that no checkpoint holds.
        licenses: address -> licence, if it is known before the download.
        say: called with each line of progress.

    Raises:
        CheckpointError: if a checkpoint cannot be fetched or recognised; names the file, the key and the remedy.
        ValueError: if `output` is not empty.
    """
    if not addresses:
        raise CheckpointError("nothing to convert; name a checkpoint for a branch, or a preset.")
    check_new_folder(output)
    paths = fetch_all(addresses.values(), licenses or {}, say)
    model, sources = assemble(addresses, paths, seed)
    with whole_folder(output) as folder:
        save_model_folder(model, default_processor(model.config), folder)
        write_json(folder / REPORT, [source.report() for source in sources])
        (folder / "README.md").write_text(card(model.config), encoding="utf-8")
    for source in sources:
        kept = source.conversion
        say(
            f"{source.branch}: {source.format.name}, {source.format.license}, sha256 {source.sha256[:12]}...: "
            f"{len(kept.used)} keys used, {len(kept.unused)} left, {len(kept.untrained)} parameters untrained"
        )
        for reason in sorted(set(kept.unused.values())):
            say(f"    left: {sum(r == reason for r in kept.unused.values())} keys, {reason}")
    return model


def assemble(
    addresses: dict[str, str], paths: dict[str, Path], seed: int = 0
) -> tuple[AIGCVQAModel, list[BranchSource]]:
    """A model with the branches of `addresses`, in eval mode; `paths` gives the local file of every address.

    Parameters that no checkpoint holds are initialised as in a new model. But the last layer of such a head is zero, so
    that the branch does not change the quality score before it is trained.
    """
    branches = [branch for branch in BRANCHES if branch in addresses]
    # The files first: a damaged one is refused before the networks are built.
    states = {address: read_checkpoint(path) for address, path in paths.items()}
    formats = {branch: recognise(states[addresses[branch]], addresses[branch], branch) for branch in branches}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AIGCVQAModel(AIGCVQAConfig(branches=branches)).eval()
    targets = model.state_dict()
    digests = {address: sha256_of(path) for address, path in paths.items()}
    sources = []
    for branch in branches:
        address, checkpoint_format = addresses[branch], formats[branch]
        conversion = convert_state(states[address], checkpoint_format, branch, targets, address)
        model.load_state_dict(conversion.tensors, strict=False)
        _configure(model, branch, checkpoint_format, conversion)
        sources.append(BranchSource(branch, address, digests[address], checkpoint_format, conversion))
    model.config.set_provenance(provenance_of(sources))
    return model, sources


def _configure(model: AIGCVQAModel, branch: str, checkpoint_format: CheckpointFormat, conversion: Conversion) -> None:
    part = getattr(model.config, f"{branch}_config")
    part.score_scale, part.score_shift = checkpoint_format.affine.get(branch, (1.0, 0.0))
    if any(key.startswith(f"{branch}_head") for key in conversion.untrained):
        for parameter in list(getattr(model, f"{branch}_head").parameters())[-2:]:  # weight and bias of the last layer
            torch.nn.init.zeros_(parameter)


def provenance_of(sources: list[BranchSource]) -> Provenance:
    """The provenance with one source per file, which may serve several branches."""
    by_digest: dict[str, Source] = {}
    untrained = []
    for source in sources:
        if source.sha256 not in by_digest:
            by_digest[source.sha256] = Source(
                branches=[],
                name=source.format.name,
                address=public_address(source.address),
                license=source.format.license,
                sha256=source.sha256,
                commercial_use=not source.format.non_commercial,
            )
        by_digest[source.sha256].branches.append(source.branch)
        for part, prefix in (("head", f"{source.branch}_head"), ("adapter", f"{source.branch}_backbone.adapter")):
            if any(key.startswith(prefix) for key in source.conversion.untrained):
                untrained.append(f"{source.branch}_{part}")
    return Provenance(sources=list(by_digest.values()), untrained=untrained)


def public_address(source: str) -> str:
    """The address of weights; for a local path only the file name, because folders are private."""
    return source if source.startswith(("hub:", "https://")) else Path(source).name


def card(config: AIGCVQAConfig) -> str:
    """The README.md of a converted folder. `training.export_hub` writes a complete model card."""
    provenance = config.get_provenance()
    free, restricted = "license: apache-2.0", "license: other\nlicense_name: s-lab-1.0-non-commercial"
    rows = [
        f"| {', '.join(s.branches)} | {s.name}: `{s.address}` | {s.license} | `{s.sha256}` |"
        for s in provenance.sources
    ]
    return CARD.format(
        license=free if provenance.commercial_use else restricted,
        note=config.weights_note,
        sources="\n".join(rows),
        report=REPORT,
    )
