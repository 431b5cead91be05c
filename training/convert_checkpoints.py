"""Build a model folder from published checkpoints: `python -m training.convert_checkpoints --preset free --out DIR`.

Each of `--technical`, `--aesthetic`, `--alignment` takes a file, `hub:owner/name[@revision]/file` or an https address
of a checkpoint, recognised by its content (DOVER, DOVER++, FAST-VQA, Video-Swin-T, ConvNeXt-T of timm, BLIP ViT-L,
ImageReward); branches without one are left out. The folder holds weights, processor, code, a model card and
`conversion.json`, which accounts for every key of every source.
"""

import argparse
import hashlib
import json
import pickle
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_file

from modeling_aigcvqa import AIGCVQAConfig, AIGCVQAModel
from modeling_aigcvqa.configuration_aigcvqa import BRANCHES
from modeling_aigcvqa.presets import default_processor, save_model_folder
from training.checkpoint_formats import (
    CheckpointError,
    CheckpointFormat,
    Conversion,
    StateDict,
    convert_state,
    recognise,
)
from training.models import ASSEMBLED, NON_COMMERCIAL

PRESETS = {
    "free": {
        "technical": "https://github.com/TimothyHTimothy/FAST-VQA/releases/download/v2.0.0/FAST_VQA_B_1_4.pth",
        "aesthetic": "hub:timm/convnext_tiny.fb_in1k/model.safetensors",
        "alignment": "hub:THUDM/ImageReward/ImageReward.pt",
    },
    "dover": {
        "technical": "hub:teowu/DOVER/DOVER.pth",
        "aesthetic": "hub:teowu/DOVER/DOVER.pth",
        "alignment": "hub:THUDM/ImageReward/ImageReward.pt",
    },
}
HUB_SOURCE = re.compile(r"hub:(?P<repo>[^/@]+/[^/@]+)(?:@(?P<revision>[^/]+))?/(?P<file>.+)")
WRAPPERS = ("state_dict", "model")
# What published checkpoints hold beside tensors: the best validation results, as numpy numbers.
SAFE_GLOBALS = [
    (np.float64(0).__reduce__()[0], "numpy.core.multiarray.scalar"),
    (np.float64(0).__reduce__()[0], "numpy._core.multiarray.scalar"),
    np.dtype,
    type(np.dtype("float64")),
    type(np.dtype("float32")),
]


@dataclass
class Source:
    """A checkpoint that was read: where from, what it is, what became of its keys."""

    branch: str
    address: str
    sha256: str
    format: CheckpointFormat
    conversion: Conversion


def fetch(address: str) -> Path:
    """A local path of the checkpoint at `address`, downloaded where it is not local."""
    if address.startswith("hub:"):
        match = HUB_SOURCE.fullmatch(address)
        if not match:
            raise CheckpointError(f"{address!r}: expected hub:owner/name[@revision]/file.")
        try:
            return Path(hf_hub_download(match["repo"], match["file"], revision=match["revision"]))
        except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
            raise CheckpointError(f"{address!r} could not be fetched from the Hub: {error}") from error
    if address.startswith("https://"):
        return _download(address)
    path = Path(address)
    if not path.is_file():
        raise CheckpointError(f"'{address}' is no file; pass a path, hub:owner/name/file or an https address.")
    return path


def _download(url: str) -> Path:
    """The file at `url` in torch.hub's folder; its SHA-256 is remembered beside it and checked from then on."""
    name = f"{hashlib.sha256(url.encode()).hexdigest()[:12]}-{url.rsplit('/', 1)[-1]}"
    path = Path(torch.hub.get_dir()) / "aigcvqa" / name
    remembered = path.with_name(path.name + ".sha256")
    if not (path.exists() and remembered.exists()):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path))
        except OSError as error:
            raise CheckpointError(f"{url!r} could not be fetched ({error}).") from error
        remembered.write_text(sha256_of(path))
    elif remembered.read_text() != sha256_of(path):
        raise CheckpointError(f"'{path}' has changed since it was fetched from {url!r}; delete it to fetch it again.")
    return path


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def read_checkpoint(path: Path) -> StateDict:
    """The state dict in a safetensors file or a torch file; nothing in the file is executed."""
    with path.open("rb") as file:
        head = file.read(9)
    if head[8:9] != b"{" and not head.startswith((b"PK", b"\x80")):  # safetensors, torch's zip files, its old files
        raise CheckpointError(f"'{path}' is no checkpoint: neither a safetensors nor a torch file.")
    try:
        if head[8:9] == b"{":
            content = load_file(path)
        else:
            with torch.serialization.safe_globals(SAFE_GLOBALS):
                content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "GLOBAL" in str(error):  # a class or function that is neither a tensor nor a plain number
            wanted = re.search(r"GLOBAL (\S+)", str(error))
            raise CheckpointError(
                f"'{path}' wants to run code when it is read ({wanted[1] if wanted else error}) and was refused; use a "
                "file of tensors alone."
            ) from error
        raise CheckpointError(f"'{path}' is no checkpoint ({_first_line(error)}).") from error
    except (SafetensorError, RuntimeError, EOFError, ValueError, OSError) as error:
        raise CheckpointError(
            f"'{path}' cannot be read as a checkpoint ({_first_line(error)}); it may be truncated: fetch it again."
        ) from error
    return unwrap(content, path)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def unwrap(content: object, path: Path) -> StateDict:
    """The state dict itself: out of {"state_dict": ...} or {"model": ...}, without the "module." of DataParallel."""
    for wrapper in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not content:
        raise CheckpointError(f"'{path}' holds no state dict (it holds {type(content).__name__}).")
    strange = [key for key, value in content.items() if not isinstance(value, torch.Tensor)]
    if strange:
        raise CheckpointError(f"'{path}': the entry {strange[0]!r} is no tensor; this is no state dict.")
    if all(key.startswith("module.") for key in content):
        content = {key.removeprefix("module."): value for key, value in content.items()}
    return content


def assemble(addresses: dict[str, str], seed: int = 0) -> tuple[AIGCVQAModel, list[Source]]:
    """A model with the branches of `addresses` (branch -> address), from their checkpoints.

    What a checkpoint does not hold starts as in a new model; the last layer of a head without weights starts at zero,
    so that the branch adds nothing to the quality before it is trained.
    """
    branches = [branch for branch in BRANCHES if branch in addresses]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AIGCVQAModel(AIGCVQAConfig(branches=branches)).eval()
    targets = model.state_dict()
    states: dict[str, tuple[StateDict, str]] = {}
    sources = []
    for branch in branches:
        address = addresses[branch]
        if address not in states:
            path = fetch(address)
            states[address] = read_checkpoint(path), sha256_of(path)
        state, digest = states[address]
        checkpoint_format = recognise(state, address, branch)
        conversion = convert_state(state, checkpoint_format, branch, targets, address)
        model.load_state_dict(conversion.tensors, strict=False)
        _configure(model, branch, checkpoint_format, conversion)
        sources.append(Source(branch, address, digest, checkpoint_format, conversion))
    model.config.weights_note = weights_note(sources)
    return model, sources


def _configure(model: AIGCVQAModel, branch: str, checkpoint_format: CheckpointFormat, conversion: Conversion) -> None:
    part = getattr(model.config, f"{branch}_config")
    part.score_scale, part.score_shift = checkpoint_format.affine.get(branch, (1.0, 0.0))
    if any(key.startswith(f"{branch}_head") for key in conversion.untrained):
        for parameter in list(getattr(model, f"{branch}_head").parameters())[-2:]:  # the last layer's
            torch.nn.init.zeros_(parameter)


def headless(sources: list[Source]) -> list[str]:
    """Branches whose score is 0 until they are trained."""
    return [
        source.branch
        for source in sources
        if any(key.startswith(f"{source.branch}_head") for key in source.conversion.untrained)
    ]


def weights_note(sources: list[Source]) -> str:
    names = ", ".join(dict.fromkeys(source.format.name for source in sources))
    note = f"{ASSEMBLED} ({names}), not trained together and not on AI-generated video."
    for branch in headless(sources):
        note += f" The {branch} head is untrained: that score is 0."
    if any(source.format.non_commercial for source in sources):
        note += f" {NON_COMMERCIAL} use only (DOVER's S-Lab License 1.0)."
    return note


def report(sources: list[Source]) -> list[dict]:
    """What `conversion.json` holds, a dict a source."""
    return [
        {
            "branch": source.branch,
            "source": source.address,
            "sha256": source.sha256,
            "format": source.format.name,
            "license": source.format.license,
            "affine": source.format.affine.get(source.branch, (1.0, 0.0)),
            "used": source.conversion.used,
            "unused": source.conversion.unused,
            "untrained": source.conversion.untrained,
        }
        for source in sources
    ]


def model_card(sources: list[Source]) -> str:
    non_commercial = any(source.format.non_commercial for source in sources)
    license_lines = (
        "license: other\nlicense_name: s-lab-1.0-non-commercial" if non_commercial else "license: apache-2.0"
    )
    lines = [
        f"---\n{license_lines}\nlibrary_name: transformers\npipeline_tag: video-classification",
        "tags: [video-quality-assessment, text-to-video]\n---\n",
        "# AIGC-VQA, assembled from published weights\n",
        f"{weights_note(sources)}\n",
        "Scores are z-scores of the published metrics where those publish their constants (see `score_scale` and",
        "`score_shift` in config.json), so that the branches add up on one scale.\n",
        "| branch | source | licence | SHA-256 |\n| --- | --- | --- | --- |",
    ]
    lines += [f"| {s.branch} | {s.format.name}: `{s.address}` | {s.format.license} | `{s.sha256}` |" for s in sources]
    if non_commercial:
        lines.append("\n**Non-commercial**: DOVER's weights may not be used commercially, nor may this model.")
    lines.append("\n`conversion.json` accounts for every key of every source.\n")
    return "\n".join(lines)


def check_out(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CheckpointError(f"--out '{out}' exists and is not empty; name a new folder.")


def write_folder(model: AIGCVQAModel, sources: list[Source], out: Path) -> None:
    """Everything into a temporary folder beside `out`, renamed at the end: never half a model."""
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        save_model_folder(model, default_processor(model.config), temporary)
        (temporary / "conversion.json").write_text(json.dumps(report(sources), indent=2))
        (temporary / "README.md").write_text(model_card(sources), encoding="utf-8")
        temporary.chmod(0o755)
        if out.exists():
            out.rmdir()
        temporary.rename(out)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training.convert_checkpoints",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    for branch in BRANCHES:
        parser.add_argument(f"--{branch}", metavar="FILE", help=f"checkpoint of the {branch} branch")
    parser.add_argument(
        "--preset", choices=list(PRESETS), help="sources for the branches not given; dover: non-commercial"
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0, help="of what no checkpoint holds")
    return parser


def main(argv: list[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    addresses = dict(PRESETS.get(arguments.preset, {}))
    addresses |= {branch: getattr(arguments, branch) for branch in BRANCHES if getattr(arguments, branch)}
    try:
        if not addresses:
            raise CheckpointError("nothing to convert; pass --technical, --aesthetic, --alignment or --preset.")
        check_out(arguments.out)
        model, sources = assemble(addresses, arguments.seed)
        write_folder(model, sources, arguments.out)
    except CheckpointError as error:
        print(f"convert_checkpoints: {error}", file=sys.stderr)
        return 2
    for source in sources:
        kept = source.conversion
        print(
            f"{source.branch}: {source.format.name}, {source.format.license}, sha256 {source.sha256[:12]}...: "
            f"{len(kept.used)} keys used, {len(kept.unused)} left, {len(kept.untrained)} parameters untrained"
        )
        for reason in sorted(set(kept.unused.values())):
            print(f"    left: {sum(r == reason for r in kept.unused.values())} keys, {reason}")
    print(model.config.weights_note)
    print(f"Wrote '{arguments.out}'.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
