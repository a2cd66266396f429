"""Scoring of sentences: one sentence at a time, as published, against tiles.

    python tools/benchmarks/anchor_selection.py [--images 20000] [--sentences 20000] [--dim 512] [--rounds 3]

The loop is timed on every 200th sentence and both are given per sentence. Processor time of one thread.
"""

import argparse
import time

import torch
import torch.nn.functional as F

from mmlt.benchmarks.common import compare
from mmlt.models.anchors import sentence_scores


def one_by_one(text, text_labels, image, image_labels, scale):
    """Cross-entropy of each sentence against the normalised indicator of its class."""
    scores = []
    for feature, label in zip(text, text_labels):
        logits = (scale * feature @ image.t()).unsqueeze(0)
        target = (image_labels == label).float().unsqueeze(0)
        target = target / target.sum()
        scores.append(-(target * logits.log_softmax(-1)).sum())
    return torch.stack(scores)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--images', type=int, default=20000)
    parser.add_argument('--sentences', type=int, default=20000)
    parser.add_argument('--classes', type=int, default=1000)
    parser.add_argument('--dim', type=int, default=512)
    parser.add_argument('--rounds', type=int, default=3)
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    text, image = (F.normalize(torch.randn(n, args.dim), dim=-1) for n in (args.sentences, args.images))
    text_labels = torch.randint(args.classes, (args.sentences,))
    image_labels = torch.cat([torch.arange(args.classes), torch.randint(args.classes, (args.images - args.classes,))])
    some = slice(None, None, 200)
    difference = one_by_one(text[some], text_labels[some], image, image_labels, 50.0) - sentence_scores(
        text[some], text_labels[some], image, image_labels, 50.0
    )
    print(f'largest difference of the scores: {float(difference.abs().max()):.1e}')
    # As much work each: the tiles need enough sentences to fill them.
    parts = [text[i::200] for i in range(0, 200, 50)]
    labels = [text_labels[i::200] for i in range(0, 200, 50)]
    compare(
        f'{sum(map(len, parts))} sentences against {args.images} images, D {args.dim}',
        {
            'one sentence at a time': lambda: [
                one_by_one(t, y, image, image_labels, 50.0) for t, y in zip(parts, labels)
            ],
            'tiles (sentence_scores)': lambda: sentence_scores(
                torch.cat(parts), torch.cat(labels), image, image_labels, 50.0
            ),
        },
        args.rounds,
        time.process_time,
    )
