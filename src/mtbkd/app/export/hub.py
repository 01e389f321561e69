"""An exported folder on the hub of Hugging Face, or any server that speaks as it does."""

from __future__ import annotations

from pathlib import Path

from mtbkd.app.export.loading import MANIFEST, check_exported
from mtbkd.errors import need
from mtbkd.types import InputError


def push_to_hub(
    folder: str | Path,
    name: str,
    *,
    private: bool = True,
    token: str | None = None,
    endpoint: str | None = None,
) -> str:
    """Upload what a folder's manifest names, as one commit; returns where that is.

    Args:
        folder: As `mtbkd export` wrote it; files beside it stay at home.
        name: ``owner/name``; it is made if there is none.
        private: Whether nobody else sees it, if it is made.
        token: The owner's; what `hf auth login` left, if not given.
        endpoint: The server; the public hub, or ``$HF_ENDPOINT``, if not given.

    Raises:
        InputError: If a file was changed, or the server cannot be reached or refuses.
    """
    hub = need("huggingface_hub", "export")
    own = [MANIFEST, *check_exported(folder)["sha256"]]
    api = hub.HfApi(endpoint=endpoint, token=token)
    try:
        api.create_repo(name, private=private, exist_ok=True)
        done = api.upload_folder(
            repo_id=name,
            folder_path=folder,
            allow_patterns=own,
            commit_message="A student of mtbkd",
        )
    except (OSError, ValueError, hub.errors.HfHubHTTPError) as error:
        raise InputError(
            f"Expected to upload {folder} to {name}, but got: {str(error).splitlines()[0]}. Check "
            "the name, the token (`hf auth login`) and the network."
        ) from None
    return str(done.commit_url)
