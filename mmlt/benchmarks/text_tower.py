"""Class prompts through a CLIP text tower, forward and backward: full length against the exact shortcuts.

python tools/benchmarks/text_tower.py [--model ViT-B-16] [--prompts 200] [--rounds 5]
"""

import argparse

import open_clip
import torch

from mmlt.benchmarks.common import compare
from mmlt.models.text import class_prompts, encode_text, equal_groups, text_lengths


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--model', default='ViT-B-16')
    parser.add_argument('--prompts', type=int, default=200, help='ImageNet class names in "a photo of a {}."')
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--threads', type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    clip = open_clip.create_model(args.model, load_weights=False)
    clip.visual = None
    names = open_clip.IMAGENET_CLASSNAMES[: args.prompts]
    tokens = open_clip.get_tokenizer(args.model)(class_prompts(names, 'clip')[0])
    longest = int(text_lengths(clip, tokens).max())

    def step(encode):
        def run():
            clip.zero_grad()
            encode().square().sum().backward()

        return run

    def planned(plan):
        return step(lambda: encode_text(clip, tokens, plan))

    print(
        f'{args.model}, {args.prompts} prompts, {tokens.shape[1]} tokens, longest text {longest}, '
        f'{args.threads} threads, forward + backward'
    )
    compare(
        'text tower',
        {
            'full length (open_clip)': step(lambda: clip.encode_text(tokens)),
            'cut to the longest': step(
                lambda: encode_text(clip, tokens, equal_groups(clip, tokens, len(tokens), False))
            ),
            'groups of like length': step(
                lambda: encode_text(clip, tokens, equal_groups(clip, tokens, share_prefix=False))
            ),
            'groups + shared prefix (default)': step(lambda: encode_text(clip, tokens)),
        },
        args.rounds,
    )
