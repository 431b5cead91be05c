"""What arguments may be set to. This file imports nothing heavy, so that wrong arguments are answered at once."""

from pathlib import Path

SHIPPED = "small"  # the model inside the package
SHIPPED_FOLDER = Path(__file__).parents[1] / "assets" / SHIPPED
ARCHITECTURES = ("full", "small")
DTYPES = ("float32", "bfloat16", "float16")
WINDOW_WEIGHTS = ("triangular", "uniform")

FAST_VQA_FILE = "https://github.com/TimothyHTimothy/FAST-VQA/releases/download/v2.0.0/FAST_VQA_B_1_4.pth"
CONVNEXT_FILE = "hub:timm/convnext_tiny.fb_in1k/model.safetensors"
DOVER_FILE = "hub:teowu/DOVER/DOVER.pth"
IMAGE_REWARD_FILE = "hub:THUDM/ImageReward/ImageReward.pt"
# Published weights. "free" may be used for any purpose, "dover" only for non-commercial purposes.
WEIGHT_SETS = {
    "free": {"technical": FAST_VQA_FILE, "aesthetic": CONVNEXT_FILE, "alignment": IMAGE_REWARD_FILE},
    "dover": {"technical": DOVER_FILE, "aesthetic": DOVER_FILE, "alignment": IMAGE_REWARD_FILE},
}
