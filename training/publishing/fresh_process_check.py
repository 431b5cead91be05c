"""Load and run everything in an exported folder without the package: `python -I fresh_process_check.py FOLDER`.

`training.export_hub` starts this script in a new process, in which the packages of this project cannot be imported. It
prints one line of JSON: the modules of the folder that were imported, the weights that are missing or unknown, and the
scores of one clip from the Auto classes, from `pipeline` and from the endpoint's handler.
"""

import base64
import importlib.util
import io
import json
import sys
from pathlib import Path

OURS = ("modeling_aigcvqa", "training", "dataset_scripts")


def tiny_clip() -> bytes:
    """A GIF of four frames, so that the check needs no video encoder."""
    from PIL import Image

    frames = [Image.linear_gradient("L").rotate(30 * step).convert("RGB") for step in range(4)]
    file = io.BytesIO()
    frames[0].save(file, format="GIF", save_all=True, append_images=frames[1:], duration=125)
    return file.getvalue()


def load_handler(folder: Path):
    """`EndpointHandler` from the folder's handler.py, loaded by its path as the endpoint does."""
    spec = importlib.util.spec_from_file_location("handler", folder / "handler.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["handler"] = module
    spec.loader.exec_module(module)
    return module.EndpointHandler(str(folder))


def main() -> None:
    folder = Path(sys.argv[1])
    sys.dont_write_bytecode = True  # leave the folder unchanged
    for package in OURS:
        sys.modules[package] = None  # importing it raises ImportError, as if it were not installed
    import torch
    from transformers import AutoConfig, AutoModel, AutoProcessor, AutoTokenizer, AutoVideoProcessor, pipeline

    for auto in (AutoConfig, AutoTokenizer, AutoVideoProcessor):
        auto.from_pretrained(folder, trust_remote_code=True)
    model, info = AutoModel.from_pretrained(folder, trust_remote_code=True, output_loading_info=True)
    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
    clip, prompt = tiny_clip(), "a gradient that turns"
    texts = {"text": prompt} if "alignment" in model.config.branches else {}
    with torch.no_grad():
        outputs = model(**processor(videos=clip, **texts))
    scores = {"AutoModel": {name: value.item() for name, value in outputs.items() if name.endswith("_score")}}
    scorer = pipeline("video-quality-assessment", model=str(folder), trust_remote_code=True, device="cpu")
    scores["pipeline"] = scorer({"video": clip, "prompt": prompt})
    del model, scorer
    item = {"video": base64.b64encode(clip).decode(), "prompt": prompt}
    answer = load_handler(folder)({"inputs": item})
    scores["handler"] = {name: value for name, value in answer.items() if name.endswith("_score")}
    remote = [name.rpartition(".")[2] for name in sys.modules if name.startswith("transformers_modules.")]
    found = {
        "modules": sorted({*remote, "handler"}),
        "wrong_keys": sorted(map(str, [*info["missing_keys"], *info["unexpected_keys"], *info["mismatched_keys"]])),
        "scores": scores,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
