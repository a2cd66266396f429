"""Weights from Hugging Face's hub: whether they are here, whether it can be reached, and whether they came whole."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress

from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError

from mmlt.errors import InputError
from mmlt.utils import digest


def in_hub_cache(repository: str, names: Sequence[str]) -> bool:
    """Whether a file was fetched before.

    Args:
        repository (str): On the hub, such as 'timm/vit_base_patch16_clip_224.openai'.
        names (Sequence[str]): The names that the file may have there.
    """
    return any(isinstance(try_to_load_from_cache(repository, name), str) for name in names)


def check_hub(repository: str, names: Sequence[str]) -> None:
    """Ask the hub once for a file that was not fetched before, and fail where it does not answer.

    A download asks six times for each of the names, with pauses: without a network that is most of a minute, or
    minutes where requests are not even refused.

    Args:
        repository (str): On the hub.
        names (Sequence[str]): The names that the file may have there.

    Raises:
        Exception: That of the hub's client, of a connection that failed.
    """
    if in_hub_cache(repository, names):
        return
    with suppress(HfHubHTTPError):  # an answer all the same: the download tells what it means
        get_hf_file_metadata(hf_hub_url(repository, names[0]))


def check_download(path: str) -> str:
    """Compare a file in the cache of Hugging Face's hub with its SHA-256, after which the cache names large files.

    What open_clip fetches from other addresses it compares itself, where they hold a hash (OpenAI's and its own).

    Args:
        path (str): A file as the hub's client gives it, or any other, which
            is not looked at.

    Returns:
        str: The same.

    Raises:
        InputError: It has another hash: it is damaged, or was changed.
    """
    stored = os.path.realpath(path)
    expected = os.path.basename(stored)
    if os.path.basename(os.path.dirname(stored)) == 'blobs' and re.fullmatch('[0-9a-f]{64}', expected):
        with open(stored, 'rb') as f:
            found = digest(iter(lambda: f.read(1 << 20), b''), size=32, kind='sha256')
        if found != expected:
            raise InputError(
                f"The download '{path}' is damaged: its SHA-256 is {found[:12]}..., but the hub has "
                f"{expected[:12]}... . Remove '{stored}' and start again, which fetches it anew."
            )
    return path
