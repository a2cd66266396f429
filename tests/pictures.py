"""The pictures of the fixture ``picture_folder`` as a dataset."""

from mmpretrain.registry import DATASETS


def training_pictures(folder, pipeline):
    """The training list of a folder of pictures.

    Args:
        folder (str | os.PathLike): As ``picture_folder`` makes it.
        pipeline (Sequence[dict]): Transforms.
    """
    return DATASETS.build(
        dict(
            type='mmlt.LongTailedDataset',
            data_root=str(folder),
            data_prefix='images',
            classes='classes.txt',
            ann_file='train.txt',
            pipeline=pipeline,
        )
    )
