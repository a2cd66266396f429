"""A trained classifier as one file, compared with what it was made of."""

from __future__ import annotations

import json
import os
import os.path as osp
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.table import Table

from mmlt.apis.models import get_model
from mmlt.checkpoints import write_text
from mmlt.checkpoints.comparison import plain
from mmlt.checkpoints.export import check_target, export, export_difference, load_exported, median_times
from mmlt.datasets.long_tailed_dataset import read_pipeline
from mmlt.datasets.pictures import READING
from mmlt.datasets.texts.class_names import class_list
from mmlt.datasets.transforms import is_loader, takes_and_gives_bgr
from mmlt.errors import InputError
from mmlt.models.deployed import DeployedClassifier

TOLERANCE = 1e-4  # of logits


@dataclass
class ExportOptions:
    """What is exported, and how; see ``mmlt export --help``."""

    config: str
    out: str
    checkpoint: str | None = None
    format: str = 'onnx'
    image_size: list[int] | None = None
    batch: str = 'dynamic'
    classes: str | None = None
    time_batch: int = 8
    cfg_options: dict | None = None


def export_size(args: ExportOptions, model) -> tuple[int, int]:
    own = getattr(model.backbone, 'image_size', None)
    size = args.image_size or own
    if size is None:
        raise InputError('The backbone does not tell its image size: give --image-size.')
    size, own = (([s, s] if isinstance(s, int) else [s[0], s[-1]]) for s in (size, own or size))
    if min(size) < 1 or len(args.image_size or ()) > 2:
        raise InputError(f'--image-size is {args.image_size}; give one or two positive numbers.')
    if size != own and not getattr(model.backbone, 'dynamic', False):
        raise InputError(
            f'This model takes pictures of {own[0]} x {own[1]}, not {size[0]} x {size[1]}: it has a position embedding '
            'for every place. Leave out --image-size.'
        )
    return size[0], size[1]


def batch_size(args: ExportOptions) -> int | None:
    if args.batch == 'dynamic':
        return None
    if not args.batch.isdigit() or int(args.batch) < 1:
        raise InputError(f"--batch is '{args.batch}'; give a positive number, or 'dynamic'.")
    return int(args.batch)


def make_folder(folder: str) -> None:
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as e:
        raise InputError(f"The folder '{folder}' cannot be made ({e.strerror}): give another --out.") from e


def tested_transforms(model) -> list | None:
    """The transforms of the config's test, as they are run; None where it has none."""
    dataset = model._config.get('test_dataloader', {}).get('dataset', {})
    return read_pipeline(dataset) if dataset.get('pipeline') else None


def training_time(model, bgr: bool):
    """The trained model as it is tested, from RGB pictures to logits."""

    def logits(images):
        images = images.flip(1) if bgr else images  # the preprocessor expects what the pipeline gives
        return model(model.data_preprocessor(dict(inputs=images))['inputs'], mode='tensor')

    return logits


def describe_export(args: ExportOptions, model, size) -> dict:
    """What a user of the file must know."""
    transforms = tested_transforms(model)
    return dict(
        format=args.format,
        classes=model._dataset_meta['classes'],
        input=dict(name='images', shape=['N' if args.batch == 'dynamic' else int(args.batch), 3, *size]),
        input_values='RGB, float, 0..255; normalisation is in the graph',
        outputs=['logits', 'probabilities'],
        picture_reading=picture_reading(transforms),
        test_pipeline=plain(transforms),
    )


def picture_reading(transforms: list | None) -> dict | str:
    """How a file becomes the picture that the other transforms take, in a test and by mmlt.apis.inference."""
    first = (transforms or [{}])[0]
    if not transforms or not is_loader(first) or first['type'] == 'mmlt.LoadPicture':
        return READING
    turned = first.get('color_type', 'color') in ('color', 'grayscale')
    turned = turned and first.get('imdecode_backend', 'cv2') in ('cv2', 'pillow')
    return f'as {first["type"]} reads it; EXIF orientation is {"applied" if turned else "ignored"}'


def megabytes(number: float) -> str:
    return f'{number / 1e6:.1f}'


def export_model(args: ExportOptions) -> dict:
    """Export a classifier, compare the file's logits with the model's, and time both in turns.

    Args:
        args (ExportOptions): See there.

    Returns:
        dict: ``difference`` of logits, ``megabytes`` before and after, and
        ``seconds`` by the number of pictures.

    Raises:
        InputError: Something is wrong with model or file; other logits.
    """
    batch = batch_size(args)
    if args.time_batch < 1:
        raise InputError(f'--time-batch is {args.time_batch}; give a positive number.')
    make_folder(osp.dirname(osp.abspath(args.out)))
    check_target(args.out, args.format)
    classes = class_list(args.classes) if args.classes else None
    model = get_model(args.config, args.checkpoint, classes=classes, cfg_options=args.cfg_options)
    size = export_size(args, model)
    before = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    transforms = tested_transforms(model)
    _, bgr = takes_and_gives_bgr(transforms or [], model.data_preprocessor.to_rgb)
    reference = training_time(model, bgr)
    sizes = [batch] if batch else [1, args.time_batch]
    pictures = {n: torch.randint(0, 256, (n, 3, *size)).float() for n in sizes}
    with torch.no_grad():
        expected = {n: reference(images) for n, images in pictures.items()}  # before low-rank weights are merged
    export(DeployedClassifier(model, bgr), args.out, args.format, size, batch)
    exported = load_exported(args.out, args.format)
    difference = max(export_difference(lambda x: expected[len(x)], exported, images) for images in pictures.values())
    if not difference <= TOLERANCE:
        os.remove(args.out)
        raise InputError(
            f"The logits of '{args.out}' differ by {difference:.1e} from those of the trained model: it was removed."
        )
    write_text(f'{args.out}.json', json.dumps(describe_export(args, model, size), indent=1, ensure_ascii=False))
    after = sum(osp.getsize(p) for p in (args.out, f'{args.out}.data') if osp.isfile(p))
    times = {
        n: median_times({'trained model': reference, args.format: exported}, images) for n, images in pictures.items()
    }
    table = Table(title=args.out, title_justify='left', title_style='bold')
    table.add_column('')
    table.add_column('MB', justify='right')
    for n in sizes:
        table.add_column(f'ms, batch {n}', justify='right')
    table.add_column('largest difference of logits', justify='right')
    for name, number, said in (('trained model', before, ''), (args.format, after, f'{difference:.1e}')):
        table.add_row(name, megabytes(number), *(f'{1000 * times[n][name]:.1f}' for n in sizes), said)
    Console().print(table)
    return dict(difference=difference, megabytes=(before / 1e6, after / 1e6), seconds=times)
