"""All sentences of a corpus as token ids, made once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import open_clip
import torch
from mmengine.dist import barrier, get_dist_info, is_main_process
from mmengine.logging import print_log
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mmlt.checkpoints import whole_file
from mmlt.errors import InputError
from mmlt.utils import digest, gather, show_progress

_CHUNK = 4096  # sentences


@dataclass
class TokenTable:
    """Token ids of a corpus, class after class.

    Args:
        tokens (Tensor): Shape (T, L), int32.
        counts (Tensor): Sentences of every class, (C, ), int64.
        sentences (list[Sequence[str]]): C lists of sentences, T in all.
    """

    tokens: Tensor
    counts: Tensor
    sentences: list[Sequence[str]]

    @property
    def offsets(self) -> Tensor:
        """Row of the first sentence of every class, (C, )."""
        return self.counts.cumsum(0) - self.counts

    @property
    def labels(self) -> Tensor:
        """Class of every row, (T, )."""
        return torch.repeat_interleave(self.counts)


def cache_directory() -> Path:
    """Where mmlt keeps what is expensive to make anew: ``$MMLT_CACHE``, or ``mmlt`` in the user's cache folder."""
    default = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'mmlt'
    return Path(os.environ.get('MMLT_CACHE') or default)


def tokenize_corpus(sentences: Sequence[Sequence[str]], tokenizer, name: str) -> TokenTable:
    """Tokenise a corpus, or read the tokens that an earlier run made of the same one.

    Sentences longer than the tower's context are cut; the cut text keeps its
    end-of-text token. Corpora of more than a few thousand sentences are kept in
    :func:`cache_directory` under a fingerprint of sentences and tokenizer.

    Args:
        sentences (Sequence[Sequence[str]]): Sentences of every class.
        tokenizer (Callable): An open_clip tokenizer.
        name (str): Name of the open_clip model, part of the fingerprint.

    Returns:
        TokenTable: Tokens and counts.
    """
    flat = [s for own in sentences for s in own]
    counts = torch.tensor([len(own) for own in sentences])
    if len(flat) <= _CHUNK:
        return TokenTable(tokenizer(flat).int(), counts, list(sentences))
    parts = (name, open_clip.__version__, str(getattr(tokenizer, 'context_length', '')), *flat)
    key = digest((f'{part}\0' for part in parts), size=16)
    path = cache_directory() / 'tokens' / f'{key}.safetensors'
    tokens = None
    if is_main_process():
        tokens = _read(path)
        if tokens is None:
            tokens = _tokenize(flat, tokenizer)
            try:
                with whole_file(path, shared=True) as part:
                    save_file({'tokens': tokens}, part)
            except InputError as e:
                print_log(f'The tokens are not kept: {e}', logger='current', level=30)
    barrier()  # the others read what the first has written
    if tokens is None and (tokens := _read(path)) is None:
        tokens = _tokenize(flat, tokenizer)
    return TokenTable(tokens, counts, list(sentences))


def _read(path: Path) -> Tensor | None:
    if not path.exists():
        return None
    try:
        return load_file(path)['tokens']
    except (SafetensorError, KeyError) as e:
        print_log(f"The token cache '{path}' is damaged ({e}) and is made anew.", logger='current', level=30)
        return None


def _tokenize(flat: list[str], tokenizer) -> Tensor:
    parts = show_progress(range(0, len(flat), _CHUNK), 'Tokenising sentences')
    return torch.cat([tokenizer(flat[i : i + _CHUNK]).int() for i in parts])


@torch.no_grad()
def encode_table(tower, table: TokenTable, description: str, batch_size: int = 512) -> Tensor:
    """Encode every sentence of a corpus once, shared out among the processes.

    Sentences of like length are encoded together: a batch takes as long as
    its longest.

    Args:
        tower (OpenCLIPText): A text tower, in eval mode.
        table (TokenTable): T sentences.
        description (str): Before the progress bar.
        batch_size (int): Sentences a forward pass. Defaults to 512.

    Returns:
        Tensor: Embeddings of shape (T, D), not normalised, on the CPU, the
        same in all processes.
    """
    rank, world_size = get_dist_info()
    device = next(tower.parameters()).device
    number = len(table.tokens)
    order = by_length(table.tokens)
    share = -(-number // world_size)
    rows = order[torch.arange(rank, share * world_size, world_size) % number]  # equal shares of all lengths
    parts = rows.split(batch_size)[::-1]  # what does not fit into memory does not fit at once
    with torch.autocast(device.type, enabled=False):  # kept for long, so not in half precision
        encoded = [tower(table.tokens[part]) for part in show_progress(parts, description)]
    features = gather(torch.cat(encoded[::-1])).float().cpu()
    features = features.unflatten(0, (world_size, share)).transpose(0, 1).flatten(0, 1)[:number]  # in that order
    return torch.empty_like(features).index_copy_(0, order, features)


def by_length(tokens: Tensor) -> Tensor:
    """Rows of a token table, those first whose last columns are alike: short texts before long ones.

    Args:
        tokens (Tensor): Shape (T, L), what follows a text is all one number.

    Returns:
        Tensor: Shape (T, ).
    """
    changes = tokens[:, 1:] != tokens[:, :-1]
    last = changes.long() * torch.arange(1, tokens.shape[1])
    return last.amax(1).argsort(stable=True) if changes.shape[1] else torch.arange(len(tokens))
