"""Upload an exported folder to the Hub."""

from pathlib import Path

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled

from .checks import ExportError

REPLACED_BY_AN_UPDATE = ["*.py", "*.json", "*.safetensors", "examples/*"]


def push(
    folder: Path,
    repo_id: str,
    private: bool = False,
    revision: str | None = None,
    update: bool = False,
    endpoint: str | None = None,
) -> str:
    """Upload an exported folder; returns the address of the commit.

    Args:
        private: whether a new repository is private.
        revision: branch, created if it does not exist; None for main.
        update: commit to a repository that exists instead of creating one. Files of an earlier export that `folder`
            lacks are deleted.
        endpoint: address of the Hub; None for `HF_ENDPOINT` or the public one.

    Raises:
        ExportError: there is no token, no network or no right to write; the repository exists already or, with
            `update`, does not exist.
    """
    if get_token() is None:
        raise ExportError("there is no Hub token; run `hf auth login` or set HF_TOKEN to a token with write access.")
    api = HfApi(endpoint=endpoint)
    try:
        if update:
            api.repo_info(repo_id)
        else:
            api.create_repo(repo_id, private=private)
        if revision:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            revision=revision,
            commit_message="Upload AIGC-VQA",
            delete_patterns=REPLACED_BY_AN_UPDATE if update else None,
        )
    except OfflineModeIsEnabled as error:
        raise ExportError("HF_HUB_OFFLINE forbids the network; unset it to push.") from error
    except HfHubHTTPError as error:
        raise ExportError(reason_of(error, repo_id)) from error
    except (HTTPError, OSError) as error:
        raise ExportError(f"the Hub at {api.endpoint} cannot be reached ({error}); check the network.") from error
    return commit.commit_url


def reason_of(error: HfHubHTTPError, repo_id: str) -> str:
    """The message for an error status of the Hub."""
    status = error.response.status_code
    reasons = {
        401: "the Hub does not know the token; run `hf auth login`.",
        403: f"the token may not write to '{repo_id}'; use one with write access to its owner.",
        404: f"there is no repository '{repo_id}' that the token can see; leave --update out to create it.",
        409: f"the repository '{repo_id}' exists already; pass --update to commit to it, or choose another name.",
    }
    return reasons.get(status, f"the Hub refused ({status}): {error}")
