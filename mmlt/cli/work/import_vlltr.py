"""Checkpoints of VL-LTR's authors."""

import os.path as osp
import shlex
from argparse import Namespace

from mmlt.checkpoints import read_checkpoint
from mmlt.checkpoints.arrays import read_array
from mmlt.checkpoints.converters import (
    expect_kind,
    fill,
    from_vlltr_pretraining,
    from_vlltr_recognition,
    unknown_sentences,
)
from mmlt.datasets import ClassTexts
from mmlt.engine.importing import build_to_fill, check_out, tell_head_classes, write_imported
from mmlt.errors import InputError
from mmlt.models.anchors import Anchors, select_sentences
from mmlt.utils import tensors_fingerprint
from mmlt.utils.text_files import read_numbers


def _check_corpus(args, embeddings, scores, counts, model, classes) -> None:
    """Embeddings, scores and sentences must be of one corpus and of this model."""
    if not len(embeddings) == len(scores) == sum(counts):
        raise InputError(
            f"'{args.embeddings}' has {len(embeddings)} sentences, '{args.scores}' {len(scores)}, and the classes have "
            f'{sum(counts)} together: all three must be of one corpus.'
        )
    if embeddings.shape[1] != model.backbone.out_channels:
        raise InputError(
            f"'{args.embeddings}' is {embeddings.shape[1]} wide and the model {model.backbone.out_channels}: they are "
            'not from one training.'
        )
    if min(counts) < 1 or (classes is not None and len(counts) != len(classes)):
        known = 'of an unknown number of' if classes is None else f'and {len(classes)}'
        raise InputError(
            f'There are sentence counts of {len(counts)} classes, the least is {min(counts)}, {known} class names: '
            'every class needs a sentence.'
        )


def select(args, model, classes) -> Anchors:
    """Anchor sentences from the published embeddings and scores."""
    embeddings, scores = read_array(args.embeddings, 2), read_array(args.scores, 1)
    if args.texts:
        if classes is None:
            raise InputError('--texts needs the class names: give --classes.')
        sentences = ClassTexts(args.texts, templates=args.templates or 'imagenet').read(classes)
        counts = [len(own) for own in sentences]
    elif args.counts:
        counts = read_numbers(args.counts)
        sentences = unknown_sentences(counts)
    else:
        raise InputError('To select anchors, the sentences of every class must be known: give --texts or --counts.')
    _check_corpus(args, embeddings, scores, counts, model, classes)
    number = 64 if args.num_anchors is None else args.num_anchors
    facts = dict(image_tower=tensors_fingerprint(model.backbone.state_dict()), num_sentences=sum(counts))
    if classes is not None:
        facts['classes'] = list(classes)
    return Anchors.gather(
        select_sentences(scores, counts, number),
        embeddings,
        scores,
        [s for own in sentences for s in own],
        number,
        model.text.clip.logit_scale.detach().exp().item(),
        facts,
    )


def check_given(kind: str, args) -> None:
    """Arguments that would do nothing are an error."""
    if (args.embeddings is None) != (args.scores is None):
        raise InputError('--embeddings and --scores belong together: give both, or neither.')
    if args.num_anchors is not None and args.num_anchors < 1:
        raise InputError(f'--num-anchors is {args.num_anchors}; it must be at least 1.')
    given = [
        name
        for name in ('embeddings', 'scores', 'num_anchors', 'counts', 'texts', 'templates')
        if getattr(args, name) is not None
    ]
    if kind == 'VL-LTR stage 2':
        useless = [name for name in given if name != 'counts']
        why = 'is of stage 2 and has its anchor sentences in it'
    elif args.embeddings is None:
        useless, why = given, 'is of stage 1, and without --embeddings and --scores no anchor sentences are selected'
    else:
        useless = ['templates'] if args.counts is not None and args.templates is not None else []
        why = 'is converted with --counts, which tell no texts that templates would come before'
    if useless:
        names = ', '.join(f'--{name.replace("_", "-")}' for name in useless)
        raise InputError(f"'{args.checkpoint}' {why}: leave out {names}.")


def training_command(config: str, checkpoint: str, anchors: str) -> str:
    """How to train the LGR head on an imported pretraining."""
    head = config.replace('_cvlp.py', '.py')
    head = head if head != config and osp.isfile(head) else 'CONFIG_OF_STAGE_2'
    options = ['stages=None', f'load_from={checkpoint}', f'model.head.anchors={anchors}']
    return shlex.join(['mmlt', 'train', head, '--cfg-options', *options])


def convert_vlltr(args: Namespace) -> None:
    """Convert, select anchors where asked, and write."""
    check_out(args.out)
    checkpoint = read_checkpoint(args.checkpoint)
    kind = expect_kind(checkpoint, ['VL-LTR stage 1', 'VL-LTR stage 2'], args.checkpoint)
    check_given(kind, args)
    cfg, model = build_to_fill(args.config, args.cfg_options)
    classes = tell_head_classes(cfg, model, args.classes)
    anchors = None
    if kind == 'VL-LTR stage 2':
        counts = read_numbers(args.counts) if args.counts else None
        renamed = from_vlltr_recognition(checkpoint, args.checkpoint, counts)
        fill(model, renamed, args.checkpoint)
    else:
        renamed = from_vlltr_pretraining(checkpoint, args.checkpoint)
        fill(model, renamed, args.checkpoint)
        if args.embeddings:
            anchors = select(args, model, classes)
    write_imported(args.out, cfg, model, classes, args.checkpoint)
    print(f'{renamed}\nWritten to {args.out}.')
    if kind == 'VL-LTR stage 2':
        print('To test it as published (on iNaturalist with 0.7):')
        print(f'mmlt test {args.config} {args.out} --cfg-options model.head.fusion=0.2')
    if anchors is not None:
        path = osp.join(osp.dirname(osp.abspath(args.out)), 'anchors.safetensors')
        anchors.save(path)
        print(f'{int(anchors.counts.sum())} of {anchors.facts["num_sentences"]} sentences are anchors: {path}')
        print('To train the LGR head on it:')
        print(training_command(args.config, args.out, path))
