"""Small pictures as text, from the files of a test set or, where it has none, from the data set itself."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.registry import DefaultScope
from PIL import Image

from mmlt.datasets.pictures import array_to_8bit, decode_picture
from mmlt.datasets.transforms import takes_and_gives_bgr
from mmlt.evaluation import Predictions
from mmlt.utils.labels import build_dataset
from mmlt.visualization.html_report.facts import one_line, where_it_is

SIDE = 72  # pixels of the longer side


def data_uri(picture: np.ndarray) -> str:
    """A picture as a small JPEG inside a text.

    Args:
        picture (np.ndarray): uint8 in RGB, (H, W, 3).

    Returns:
        str: A URI that begins with ``data:image/jpeg``.
    """
    image = Image.fromarray(picture)
    image.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    image.save(buffer, 'JPEG', quality=72, optimize=True)
    return 'data:image/jpeg;base64,' + base64.b64encode(buffer.getvalue()).decode()


class RunPictures:
    """The pictures of a run's predictions.

    Args:
        found (Predictions): Of N pictures.
        cfg (Config, optional): The run's, which has the test set.
        folder (Path): The run's, above which paths may begin.
    """

    def __init__(self, found: Predictions, cfg: Config | None, folder: Path):
        self._found, self._cfg, self._folder = found, cfg, folder
        self._dataset = None
        self.trouble: str | None = None  # why the first picture that is missing is missing

    def get(self, place: int) -> str | None:
        """A picture as text, see :func:`data_uri`.

        Args:
            place (int): Which prediction.

        Returns:
            str | None: None where it is not to be had, see :attr:`trouble`.
        """
        try:
            return data_uri(self._read(place))
        except Exception as e:  # a report without a picture is still one; pictures and data sets fail in any way
            self.trouble = self.trouble or f'{type(e).__name__}: {one_line(e)}'
            return None

    def _read(self, place: int) -> np.ndarray:
        if path := str(self._found.path[place]):
            return decode_picture(where_it_is(path, self._folder).read_bytes())
        if self.trouble:
            raise LookupError(self.trouble)  # the data set is built once, not for every picture
        info = self._own_dataset().get_data_info(int(self._found.index[place]))
        if int(np.ravel(info['gt_label'])[0]) != self._found.label[place]:
            raise LookupError('the test set of the config has other pictures than those that were tested')
        picture = array_to_8bit(np.asarray(info['img']))
        return np.ascontiguousarray(picture[..., ::-1]) if self._bgr else picture

    def _own_dataset(self):
        if self._dataset is None:
            if self._cfg is None or not self._cfg.get('test_dataloader'):
                raise LookupError('there is no config with the test set')
            with DefaultScope.overwrite_default_scope('mmpretrain'):
                dataset = build_dataset(self._cfg.test_dataloader.dataset)
            if not hasattr(dataset, 'get_data_info') or not hasattr(dataset, 'pipeline'):
                raise LookupError(f'numbers of pictures mean nothing in a {type(dataset).__name__}')
            to_rgb = (self._cfg.model.get('data_preprocessor') or {}).get('to_rgb', False)
            self._bgr, _ = takes_and_gives_bgr(dataset.pipeline.transforms, to_rgb)
            self._dataset = dataset
        return self._dataset
