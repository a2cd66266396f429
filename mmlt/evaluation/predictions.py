"""What was predicted for every test picture, in one compact file."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmlt.checkpoints import write_bytes
from mmlt.errors import InputError

PREDICTIONS = 'predictions.npz'  # beside shot_report.json


@dataclass(frozen=True)
class Predictions:
    """Predictions of N scored test pictures, in the order of the dataset.

    Args:
        label (np.ndarray): True classes, (N, ).
        prediction (np.ndarray): Predicted classes, (N, ).
        confidence (np.ndarray): Their probabilities, (N, ); NaN where the
            model gives none.
        path (np.ndarray): Paths of the pictures, texts of (N, ); empty where a
            picture has no file.
        index (np.ndarray): Their numbers in the dataset, (N, ); -1 where that
            is not known.
    """

    label: np.ndarray
    prediction: np.ndarray
    confidence: np.ndarray
    path: np.ndarray
    index: np.ndarray

    @classmethod
    def gather(cls, rows: Sequence[tuple[int, int, float, str, int]]) -> Predictions:
        """Put together (label, prediction, confidence, path, index) of every picture."""
        label, prediction, confidence, path, index = zip(*rows)
        return cls(
            np.array(label, dtype=np.int32),
            np.array(prediction, dtype=np.int32),
            np.array(confidence, dtype=np.float32),
            np.array(path, dtype=np.str_),
            np.array(index, dtype=np.int64),
        )

    def save(self, path: str | Path) -> None:
        """Write an ``.npz`` without pickle, whole or not at all."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **vars(self))
        write_bytes(path, buffer.getvalue())

    @classmethod
    def load(cls, path: str | Path) -> Predictions:
        """Read what :meth:`save` wrote.

        Raises:
            InputError: It is damaged, or another kind of file.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                found = cls(**{name: arrays[name] for name in cls.__dataclass_fields__})
        except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as e:
            raise InputError(
                f"'{path}' holds no predictions, or is damaged ({type(e).__name__}): test the run again with mmlt test."
            ) from e
        kinds = {'label': 'i', 'prediction': 'i', 'confidence': 'f', 'path': 'U', 'index': 'i'}
        wrong = [n for n, kind in kinds.items() if getattr(found, n).dtype.kind != kind]
        if wrong or len({getattr(found, n).shape for n in kinds}) > 1 or found.label.ndim != 1:
            raise InputError(f"'{path}' holds no predictions of pictures: test the run again with mmlt test.")
        return found
