"""Loading of pictures: the one way in which they come in, and in which order their channels are then."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence

import cv2
import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmengine.dataset import Compose
from mmengine.fileio import FileClient, get
from mmengine.registry import DefaultScope
from mmpretrain.registry import TRANSFORMS as MM_TRANSFORMS

from mmlt.datasets.deferred_picture import DeferredPicture, unreadable
from mmlt.datasets.pictures import array_to_8bit, decode_picture
from mmlt.errors import InputError
from mmlt.registry import TRANSFORMS

# Arguments of LoadPicture that its repr() shows, by which caches of features tell loaders apart.
_SHOWN = ('to_float32', 'ignore_empty', 'file_client_args', 'backend_args', 'defer')


@TRANSFORMS.register_module()
class LoadPicture(LoadImageFromFile):
    """Load a picture of any stored form as 8-bit BGR; see :func:`mmlt.datasets.pictures.to_rgb`.

    It stands in place of MMPretrain's ``LoadImageFromFile``, of which an
    ordinary 8-bit picture comes out the same.

    Required keys: ``img_path``; without it ``img``, an array in BGR, is
    brought to 8 bits and three channels, as by inferencers.

    Modified keys: ``img``, ``img_shape``, ``ori_shape``.

    Args:
        to_float32 (bool): Give float32 in place of uint8. Defaults to False.
        ignore_empty (bool): Give None for a picture that cannot be read.
            Defaults to False.
        file_client_args (dict, optional): See ``LoadImageFromFile``.
            Defaults to None.
        backend_args (dict, optional): See ``LoadImageFromFile``.
            Defaults to None.
        defer (bool): Give, for a file in ``img_path``, a
            :class:`mmlt.datasets.deferred_picture.DeferredPicture`, of which
            the next transform, which must be a
            :class:`mmlt.datasets.RandomResizedCrop`, has decoded what it
            needs. Data sets of this project set it where that can be.
            Defaults to False.

    Raises:
        InputError: ``defer`` together with ``to_float32`` or
            ``ignore_empty``; a picture that cannot be read, or whose form does not tell
            what is black and white; it is named.

    Examples:
        >>> pipeline = [dict(type='mmlt.LoadPicture'), dict(type='PackInputs')]
    """

    def __init__(
        self,
        to_float32: bool = False,
        ignore_empty: bool = False,
        file_client_args: dict | None = None,
        *,
        backend_args: dict | None = None,
        defer: bool = False,
    ):
        if defer and (to_float32 or ignore_empty):
            raise InputError(
                'LoadPicture has defer=True, which goes with neither to_float32 nor ignore_empty: leave defer out.'
            )
        super().__init__(
            to_float32=to_float32,
            imdecode_backend='pillow',
            file_client_args=file_client_args,
            ignore_empty=ignore_empty,
            backend_args=backend_args,
        )
        self.defer = defer

    def transform(self, results: dict) -> dict | None:
        """Load the picture."""
        if (path := results.get('img_path')) is None:
            image: DeferredPicture | np.ndarray = array_to_8bit(results['img'])
        else:
            data = None
            try:
                data = self._get(path)
                image = DeferredPicture(data, path) if self.defer else _bgr(decode_picture(data))
            except Exception as e:  # decoders fail in many ways
                if self.ignore_empty:
                    return None
                raise unreadable(path, e, data) from e
        results['img'] = image.astype('float32') if self.to_float32 else image  # type: ignore[union-attr]  # not deferred
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results

    def _get(self, path: str) -> bytes:
        if self.file_client_args is not None:
            return FileClient.infer_client(self.file_client_args, path).get(path)
        return get(path, backend_args=self.backend_args)

    def __repr__(self) -> str:
        shown = {k: getattr(self, k) for k in _SHOWN}
        return f'{type(self).__name__}({", ".join(f"{k}={v}" for k, v in shown.items() if v)})'


def _bgr(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(image, cv2.COLOR_RGB2BGR)


def _class_and_settings(transform: dict | Callable) -> tuple[type, dict]:
    if not isinstance(transform, dict):
        return type(transform), vars(transform)
    kind = transform['type']
    if not inspect.isclass(kind):
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            kind = MM_TRANSFORMS.get(kind) or type(None)
    return kind, transform


def is_loader(transform: dict | Callable) -> bool:
    """Whether a transform, or the config of one, loads a picture from a file."""
    return issubclass(_class_and_settings(transform)[0], LoadImageFromFile)


def picture_pipeline(pipeline: Sequence[dict | Callable]) -> list:
    """Transforms in which :class:`LoadPicture` stands for a plain ``LoadImageFromFile``.

    One that asks for something else than colours, or for a decoder of its own
    (turbojpeg, tifffile), stays. Directly before a
    :class:`mmlt.datasets.RandomResizedCrop` it leaves the decoding to that.

    Args:
        pipeline (Sequence[dict | Callable]): Transforms, or configs of them.

    Returns:
        list: As long as ``pipeline``.

    Raises:
        InputError: A loader has ``defer=True``, and another transform follows.
    """
    pipeline = [_plain_replaced(transform) for transform in pipeline]
    return [_deferring(transform, after) for transform, after in zip(pipeline, [*pipeline[1:], None])]


def _deferring(transform, after):
    """A loader that gives what the transform after it takes."""
    kind, settings = _class_and_settings(transform)
    if not isinstance(transform, dict) or not issubclass(kind, LoadPicture):
        return transform
    taken = after is not None and getattr(_class_and_settings(after)[0], 'takes_deferred', False)
    if settings.get('defer') and not taken:
        raise InputError(
            'LoadPicture has defer=True, but no mmlt.RandomResizedCrop stands directly behind it: leave defer out.'
        )
    if not taken or 'defer' in settings or settings.get('to_float32') or settings.get('ignore_empty'):
        return transform
    return dict(transform, defer=True)


def _plain_replaced(transform):
    kind, settings = _class_and_settings(transform)
    if (
        not isinstance(transform, dict)
        or kind is not LoadImageFromFile
        or settings.get('color_type', 'color') != 'color'
        or settings.get('imdecode_backend', 'cv2') not in ('cv2', 'pillow')
    ):
        return transform
    kept = {k: v for k, v in settings.items() if k not in ('type', 'color_type', 'imdecode_backend')}
    return dict(type='mmlt.LoadPicture', **kept)


def compose_like(dataset, pipeline: Sequence[dict | Callable]) -> Compose:
    """Other transforms for a dataset, which loads its pictures as by its own.

    Args:
        dataset (BaseDataset): With a ``pipeline``.
        pipeline (Sequence[dict | Callable]): Transforms, or configs of them.

    Returns:
        Compose: The transforms, with :class:`LoadPicture` where the dataset's
        own have it.
    """
    if any(isinstance(transform, LoadPicture) for transform in getattr(dataset.pipeline, 'transforms', ())):
        pipeline = picture_pipeline(pipeline)
    return Compose([MM_TRANSFORMS.build(t) if isinstance(t, dict) else t for t in pipeline])


def takes_and_gives_bgr(pipeline: Sequence[dict | Callable], to_rgb: bool) -> tuple[bool, bool]:
    """In which order a pipeline takes the channels of a picture, and in which it gives them.

    Files are loaded in BGR. Where none is loaded the dataset holds arrays,
    and the preprocessor tells in which order they reach it. On the way
    ``NumpyToPIL`` and ``PILToNumpy`` can exchange the channels.

    Args:
        pipeline (Sequence[dict | Callable]): Transforms, or configs of them.
        to_rgb (bool): The preprocessor's: whether it takes BGR for RGB.

    Returns:
        tuple[bool, bool]: Whether what stands behind the loading, or in the
        dataset, is BGR, and whether what comes out is.
    """
    exchanged = False
    for kind, settings in map(_class_and_settings, pipeline):
        if kind.__name__ in ('NumpyToPIL', 'PILToNumpy'):
            exchanged ^= bool(settings.get('to_rgb') or settings.get('to_bgr'))
    if any(map(is_loader, pipeline)):
        return True, not exchanged
    return to_rgb != exchanged, to_rgb
