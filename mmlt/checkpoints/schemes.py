"""MMEngine's loaders of checkpoints, one for each kind of address, with our reader at their end.

Most of MMEngine's end in ``torch.load`` as torch, the environment or a fork
decides; some read unsafely whatever torch's default is.
"""

from __future__ import annotations

import os
import os.path as osp
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlparse

import torch
from mmengine.dist import barrier, get_dist_info
from mmengine.fileio import get_file_backend
from mmengine.runner import CheckpointLoader
from mmengine.runner import checkpoint as mmengine_checkpoint

from mmlt.checkpoints.read import read_bytes, read_checkpoint
from mmlt.errors import InputError


def load_from_local(filename: str, map_location=None) -> Any:
    """A file of this machine, see :func:`mmlt.checkpoints.read.read_checkpoint`."""
    return read_checkpoint(filename, map_location)


def load_from_http(filename: str, map_location=None, model_dir: str | None = None, progress: bool | None = None) -> Any:
    """A file of the network, kept where torch.hub keeps them."""
    folder = model_dir or osp.join(torch.hub.get_dir(), 'checkpoints')
    path = osp.join(folder, osp.basename(urlparse(filename).path))
    progress = os.isatty(0) if progress is None else progress
    main = get_dist_info()[0] == 0
    if main:
        _fetch(filename, path, progress)
    barrier()
    if not main:  # of another machine, which has a folder of its own
        _fetch(filename, path, progress)
    return read_checkpoint(path, map_location)


def _fetch(address: str, path: str, progress: bool) -> None:
    if osp.exists(path):
        return
    os.makedirs(osp.dirname(path), exist_ok=True)
    try:
        torch.hub.download_url_to_file(address, path, progress=progress)
    except OSError as e:
        raise InputError(
            f"The checkpoint '{address}' could not be fetched ({type(e).__name__}: {e}): fetch it by other means, and "
            'give its path.'
        ) from e


def load_from_ceph(filename: str, map_location=None, backend: str = 'petrel') -> Any:
    """A file of an object store."""
    return read_bytes(get_file_backend(filename, backend_args=dict(backend=backend)).get(filename), filename)


def load_from_pavi(filename: str, map_location=None) -> Any:
    """A file of PAVI's model cloud."""
    try:
        from pavi import modelcloud
    except ImportError as e:
        raise InputError(f"'{filename}' needs the package pavi: fetch the file elsewhere, and give its path.") from e
    model = modelcloud.get(filename.removeprefix('pavi://'))
    with TemporaryDirectory() as folder:
        path = osp.join(folder, model.name)
        model.download(path)
        return read_checkpoint(path, map_location)


def load_from_torchvision(filename: str, map_location=None) -> Any:
    """Weights of torchvision, by their names."""
    return _by_name(filename, mmengine_checkpoint.get_torchvision_models(), map_location)


def load_from_openmmlab(filename: str, map_location=None) -> Any:
    """Weights of OpenMMLab, by their names."""
    known = mmengine_checkpoint.get_external_models()
    new = mmengine_checkpoint.get_deprecated_model_names()
    scheme, _, name = filename.partition('://')
    return _by_name(f'{scheme}://{new.get(name, name)}', known, map_location)


def load_from_mmcls(filename: str, map_location=None) -> Any:
    """Weights of MMClassification, by their names; those of the backbone."""
    checkpoint = _by_name(filename, mmengine_checkpoint.get_mmcls_models(), map_location)
    return mmengine_checkpoint._process_mmcls_checkpoint(checkpoint)


def load_from_unknown(filename: str, map_location=None) -> Any:
    """An address whose loader, MMEngine's own, is not known to load safely."""
    raise InputError(
        f"'{filename}' is of a kind of address that mmlt does not read: fetch the file elsewhere, and give its path."
    )


def _by_name(filename: str, addresses: dict[str, str], map_location) -> Any:
    name = filename.partition('://')[2]
    if name not in addresses:
        raise InputError(f"There is no checkpoint '{filename}': give the name of one that is, or a file.")
    address = addresses[name]
    if address.startswith(('http://', 'https://')):
        return load_from_http(address, map_location)
    return read_checkpoint(osp.join(mmengine_checkpoint._get_mmengine_home(), address), map_location)


_LOADERS = {
    '': load_from_local,
    'file://': load_from_local,
    'http://': load_from_http,
    'https://': load_from_http,
    'pavi://': load_from_pavi,
    r'(\S+\:)?s3://': load_from_ceph,
    r'(\S+\:)?petrel://': load_from_ceph,
    'modelzoo://': load_from_torchvision,
    'torchvision://': load_from_torchvision,
    'open-mmlab://': load_from_openmmlab,
    'openmmlab://': load_from_openmmlab,
    'mmcls://': load_from_mmcls,
}


def register_loaders() -> None:
    """Put our loaders in the place of MMEngine's, by its own register; loaders of other packages stay."""
    for prefix, loader in list(CheckpointLoader._schemes.items()):
        if prefix not in _LOADERS and loader.__module__.startswith('mmengine.'):
            CheckpointLoader.register_scheme(prefix, load_from_unknown, force=True)
    for prefix, loader in _LOADERS.items():
        CheckpointLoader.register_scheme(prefix, loader, force=True)
