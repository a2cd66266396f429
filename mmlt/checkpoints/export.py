"""Writing, reading and timing of exported classifiers."""

from __future__ import annotations

import importlib.util
import inspect
import logging
import os.path as osp
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext, redirect_stdout
from io import StringIO

import torch
from torch import Tensor, nn

from mmlt.checkpoints import whole_file
from mmlt.choices import EXPORT_FORMATS as FORMATS
from mmlt.errors import InputError

OUTPUTS = ('logits', 'probabilities')
_SINGLE_FILE = 2**31 - 2**24  # bytes; a protobuf file cannot be larger


@torch.no_grad()
def export(model: nn.Module, path: str, form: str, image_size: tuple[int, int], batch: int | None = None) -> None:
    """Write a classifier for use without this project.

    Args:
        model (nn.Module): From pictures to the pair of :data:`OUTPUTS`.
        path (str): File to write.
        form (str): One of :data:`FORMATS`.
        image_size (tuple[int, int]): Height and width of the pictures.
        batch (int, optional): Fixed number of pictures. Defaults to None, any
            number.

    Raises:
        InputError: See :func:`check_target`; or the model has a part that the
            format cannot express.
    """
    check_target(path, form)
    example = torch.rand(2 if batch is None else batch, 3, *image_size, device=next(model.parameters()).device) * 255
    shapes = None if batch is not None else ({0: torch.export.Dim('batch')},) if form != 'torchscript' else None
    size = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    in_two_files = form == 'onnx' and size > _SINGLE_FILE  # the second is named after the first
    try:
        with (
            nullcontext(path) if in_two_files else whole_file(path) as part,
            warnings.catch_warnings(),
            redirect_stdout(StringIO()),  # exporters talk about themselves
        ):
            warnings.simplefilter('ignore')
            logging.getLogger('onnxscript').setLevel(logging.ERROR)
            if form == 'torchscript':
                torch.jit.save(torch.jit.trace(model, example, check_trace=False), part)
            elif form == 'torch-export':
                torch.export.save(torch.export.export(model, (example,), dynamic_shapes=shapes), part)
            else:
                torch.onnx.export(
                    model,
                    (example,),
                    part,
                    dynamo=True,
                    input_names=['images'],
                    output_names=list(OUTPUTS),
                    dynamic_shapes=shapes,
                    external_data=in_two_files,
                    verbose=False,
                )
    except InputError:
        raise
    except Exception as e:
        raise InputError(
            f'The model could not be exported as {form} ({type(e).__name__}: {" ".join(str(e).split())[:200]}).'
        ) from e


def check_target(path: str, form: str) -> None:
    """Whether a file of a format can be written here.

    Args:
        path (str): The file.
        form (str): One of :data:`FORMATS`.

    Raises:
        InputError: No such format; another ending; a folder that does not
            exist; a package is missing, or torch is too old.
    """
    if form not in FORMATS:
        raise InputError(f"There is no export format '{form}'; choose one of {', '.join(FORMATS)}.")
    if not path.endswith(FORMATS[form]):
        raise InputError(f"A file of the format {form} ends in {FORMATS[form]}; '{path}' does not.")
    if not osp.isdir(folder := osp.dirname(osp.abspath(path))):
        raise InputError(f"The folder '{folder}' does not exist: make it, or write to another one.")
    if osp.isdir(path):
        raise InputError(f"'{path}' is a folder: give the name of a file.")
    if form == 'onnx':
        if missing := [p for p in ('onnx', 'onnxscript', 'onnxruntime') if importlib.util.find_spec(p) is None]:
            raise InputError(f"ONNX export needs {', '.join(missing)}: run pip install 'mmlt[deploy]'.")
        if 'dynamo' not in inspect.signature(torch.onnx.export).parameters:
            raise InputError(f'ONNX export needs torch 2.5 or newer; this is {torch.__version__}.')
    elif form == 'torch-export' and not hasattr(torch.export, 'Dim'):
        raise InputError(f'torch.export needs torch 2.2 or newer; this is {torch.__version__}.')


def load_exported(path: str, form: str) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Read a file that :func:`export` wrote.

    Args:
        path (str): The file.
        form (str): Its format.

    Returns:
        Callable: From pictures (N, 3, H, W) on the CPU to logits and
        probabilities. ONNX runs in onnxruntime.
    """
    if form == 'torchscript':
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            return torch.jit.load(path, map_location='cpu')
    if form == 'torch-export':
        return torch.export.load(path).module()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=['CPUExecutionProvider'])

    def run(images: Tensor) -> tuple[Tensor, Tensor]:
        logits, probabilities = session.run(list(OUTPUTS), {'images': images.numpy()})
        return torch.from_numpy(logits), torch.from_numpy(probabilities)

    return run


@torch.no_grad()
def export_difference(reference: Callable[[Tensor], Tensor], exported: Callable, images: Tensor) -> float:
    """Largest difference of logits.

    Args:
        reference (Callable): From pictures to logits.
        exported (Callable): See :func:`load_exported`.
        images (Tensor): Shape (N, 3, H, W).

    Returns:
        float: In units of a logit.
    """
    return float((exported(images)[0] - reference(images)).abs().max())


@torch.no_grad()
def median_times(functions: Mapping[str, Callable], images: Tensor, rounds: int = 15) -> dict[str, float]:
    """Median time of every function, called in turn so that all meet the same load.

    Args:
        functions (Mapping[str, Callable]): By name.
        images (Tensor): What they are called with.
        rounds (int): Calls of each, after two to warm up. Defaults to 15.

    Returns:
        dict[str, float]: Seconds.
    """
    times: dict[str, list[float]] = {name: [] for name in functions}
    for i in range(rounds + 2):
        for name, function in functions.items():
            start = time.perf_counter()
            function(images)
            if i >= 2:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(own) for name, own in times.items()}
