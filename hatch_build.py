"""The addresses of the project in the metadata of a build: nobody types them, so no copy can point to a wrong owner.

On GitHub they are those of the repository whose workflow builds. Elsewhere they are those of the environment's
`REPOSITORY_URL`; without it, the metadata hold no addresses and the README's links stay relative.
"""

import os
import re
from pathlib import Path

from hatchling.metadata.plugin.interface import MetadataHookInterface

RELATIVE_LINK = re.compile(r"\]\((?!https?://|#|mailto:)([^)\s]+)\)")


class Addresses(MetadataHookInterface):
    """Fills in `project.urls` and `project.readme`."""

    def update(self, metadata: dict) -> None:
        """Adds both fields to `metadata`, the `project` table of pyproject.toml."""
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        if repository := repository_url():
            text = RELATIVE_LINK.sub(rf"]({repository}/blob/main/\1)", text)
            metadata["urls"] = {
                "Homepage": repository,
                "Documentation": f"{repository}/blob/main/docs/index.md",
                "Repository": repository,
                "Issues": f"{repository}/issues",
                "Changelog": f"{repository}/blob/main/CHANGELOG.md",
            }
        else:
            metadata["urls"] = {}
        metadata["readme"] = {"content-type": "text/markdown", "text": text}


def repository_url() -> str:
    """The address of the repository without a slash at its end, or ""."""
    if "GITHUB_REPOSITORY" in os.environ:
        return f"{os.environ.get('GITHUB_SERVER_URL', 'https://github.com')}/{os.environ['GITHUB_REPOSITORY']}"
    return os.environ.get("REPOSITORY_URL", "").rstrip("/")
