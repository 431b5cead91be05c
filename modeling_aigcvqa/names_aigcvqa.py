"""Names that arguments, configs and results share.

This file imports nothing, so that a command line starts quickly.
"""

BRANCHES = ("technical", "aesthetic", "alignment")
SCORES = ("quality_score", "technical_score", "aesthetic_score", "alignment_score")
RESULTS = (*SCORES, "quality_of", "warning", "error")  # of a clip
SPREADS = tuple(f"{score}_{part}" for score in SCORES for part in ("mean", "std"))
INTERVAL = ("quality_score_low", "quality_score_high")
UNCERTAINTY = (*SPREADS, *INTERVAL)  # of a clip, if it was asked for
PERCENTILE_OF = {score: score.replace("_score", "_percentile") for score in SCORES}
PERCENTILES = tuple(PERCENTILE_OF.values())
QUALITY_MOS = "quality_mos"
SCALE = (*PERCENTILES, QUALITY_MOS)  # of a clip, if it was asked for
NUMBERS = (*SCORES, *UNCERTAINTY, *SCALE)  # all results that are numbers
ON_ERROR = ("raise", "return")
ON_DAMAGE = ("raise", "warn")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".avif")
VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".gif", ".apng", ".flv", ".f4v", ".ts", ".m2ts", ".mts"),
    *(".mpg", ".mpeg", ".m2v", ".vob", ".wmv", ".asf", ".ogv", ".ogg", ".3gp", ".3g2", ".mxf", ".nut", ".y4m"),
)


def shortened(text: str, most: int = 200) -> str:
    """A text for messages: the start and the end of a long one."""
    return text if len(text) <= most else f"{text[: most // 2]}...{text[3 - most // 2 :]}"
