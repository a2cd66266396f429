"""Replay a recorded training of VL-LTR's published code with our configs, and compare.

    python tests/recipes/replay.py tests/data/recipes/vlltr_stage1_vit.safetensors
    python tests/recipes/replay.py tests/data/recipes/*.safetensors --switch-off

A trajectory is a pair of files. The ``.safetensors`` file has the weights before and after, the pictures, labels and
sentences of every step; the ``.json`` file beside it the sizes and what the code did. The recipe comes from the config
that belongs to it; only what makes the run small (sizes, epochs, length of the warm-up, rates) is set by options, and
what the trajectory did otherwise than its config is told and followed. The exit code is 1 where an error is too large.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import open_clip
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample
from safetensors.torch import load_file

from mmlt.checkpoints.comparison import plain
from mmlt.checkpoints.converters import fill, from_vlltr_pretraining, from_vlltr_recognition
from mmlt.models.text.token_table import TokenTable

CONFIGS = Path(__file__).resolve().parents[2] / 'configs' / 'vlltr'
LOSS_BOUND = 1e-4  # relative, of every step
WEIGHT_BOUND = 1e-2  # |ours - theirs| over |theirs - start|, of every tensor
RATE_BOUND = 1e-9  # relative, of every epoch

# Their gradient is zero on paper, so that Adam makes full steps of what is rounding noise: all sentences of a class, or
# all keys of a query, shift by the same amount. Of in_proj_bias the middle third, of the keys, is left out.
NO_GRADIENT = ('text_block.attn.norm1k.bias', 'visual.attnpool.k_proj.bias')


@dataclass
class Errors:
    """What a replay found."""

    loss: list[float] = field(default_factory=list)  # relative, by step
    rate: list[float] = field(default_factory=list)  # relative, by epoch
    weights: dict[str, float] = field(default_factory=dict)  # relative to how far the tensor went
    decay: list[str] = field(default_factory=list)  # parameters in a group of another weight decay

    @property
    def right(self) -> bool:
        """Whether all of them are small."""
        parts = ((self.loss, LOSS_BOUND), (self.rate, RATE_BOUND), (self.weights.values(), WEIGHT_BOUND))
        return not self.decay and all(e <= bound for errors, bound in parts for e in errors)

    def summary(self) -> list[str]:
        """Worst loss, rate and weights, and the number of parameters of another decay, to be read."""
        worst = max(self.weights, key=self.weights.get)
        return [
            f'{max(self.loss):.1e}', f'{max(self.rate):.1e}', f'{self.weights[worst]:.1e} ({worst})',
            str(len(self.decay)),
        ]  # fmt: skip


def read(path: str | Path) -> tuple[dict, dict]:
    """The facts and the tensors of a trajectory."""
    path = Path(path)
    return json.loads(path.with_suffix('.json').read_text()), load_file(path)


def config_of(facts: dict) -> Path:
    """The config that the facts of a trajectory belong to."""
    backbone = {'vit': 'vit-b16', 'rn': 'rn50'}[facts['towers']]
    if facts['stage'] == 'CVLP':
        return CONFIGS / f'vlltr_{backbone}_{"inat18" if facts["train_mode"] else "imagenet-lt"}_cvlp.py'
    return CONFIGS / f'vlltr_{backbone}_{"inat18" if facts["image_tower_trained"] else "imagenet-lt"}.py'


def shrinking(facts: dict) -> dict:
    """Options that make the config's run as small as the trajectory's; nothing else of the recipe."""
    options = {
        'train_cfg.max_epochs': facts['epochs'],
        'optim_wrapper.optimizer.lr': facts['optimizer']['lr'],
        'model.data_preprocessor': dict(type='mmlt.CLIPDataPreprocessor'),  # pictures come normalised and mixed
        'model.backbone.pretrained': None,
        'param_scheduler.0.warmup_epochs': facts['warmup_epochs'],
    }
    if facts['stage'] == 'CVLP':
        return {
            **options,
            'model.text.pretrained': None,
            'model.teacher.pretrained': None,
        }
    return {
        **options,
        'optim_wrapper.paramwise_cfg.rates.0.lr': facts['text_lr'],
        'model.head.num_classes': facts['classes'],
        'model.head.in_channels': facts['embed_dim'],
        'model.head.anchors': None,
    }


def otherwise(facts: dict, cfg: Config) -> dict:
    """Options for what the trajectory did otherwise than the config; none where it is of the config's recipe."""
    did = {f'optim_wrapper.optimizer.{key}': facts['optimizer'][key] for key in ('betas', 'eps', 'weight_decay')}
    did['param_scheduler.0.eta_min'] = facts['min_lr']
    did['model.backbone.quick_gelu'] = facts['quick_gelu']
    if facts['stage'] == 'CVLP':
        did['param_scheduler.0.warmup_lr'] = facts['warmup_lr']
        did['model.text.quick_gelu'] = did['model.teacher.quick_gelu'] = facts['quick_gelu']
        did['model.loss.label_smoothing'] = facts['label_smoothing']
        did['model.loss_ratio'] = 1 - facts['distillation_beta']
        did['model.backbone.norm_eval'] = not facts['train_mode']
    else:
        did['model.head.loss.label_smooth_val'] = facts['label_smoothing']
        did['model.head.detach_norm'] = facts['v_detach']
        did['model.backbone.frozen'] = not facts['image_tower_trained']
        did['model.backbone.norm_eval'] = facts['image_tower_mode'] == 'eval'
    return {key: value for key, value in did.items() if plain(setting(cfg, key)) != plain(value)}


def setting(cfg: Config, key: str):
    """The value of a dotted key, None where it is not set and False for switches that are off by default."""
    for name in key.split('.'):
        cfg = cfg[int(name)] if isinstance(cfg, list) else cfg.get(name)
    return False if cfg is None and key.endswith('detach_norm') else cfg


def tiny_towers(facts: dict) -> str:
    """Make the trajectory's towers known to open_clip; return their name."""
    vision, text = facts['vision'], facts.get('text') or dict(width=64, heads=1, layers=1)
    layers, patch = vision['vision_layers'], vision['vision_patch_size']
    config = dict(
        embed_dim=facts['embed_dim'],
        vision_cfg=dict(
            image_size=vision['image_resolution'], layers=layers, width=vision['vision_width'], patch_size=patch
        ),
        text_cfg=dict(
            context_length=facts.get('context_length', 8), vocab_size=facts.get('vocab_size', 64),
            width=text['width'], heads=text['heads'], layers=text['layers'],
        ),
    )  # fmt: skip
    config['vision_cfg']['head_width'] = min(64, vision['vision_width'] * (32 if patch is None else 1))
    name = f'replay-{abs(hash(json.dumps(config, sort_keys=True))):x}'
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f'{name}.json'
        path.write_text(json.dumps(config))
        open_clip.add_model_config(path)
    return name


def resolved(facts: dict, options: dict | None = None) -> Config:
    """The config with the trajectory's sizes, and further options."""
    cfg = Config.fromfile(config_of(facts))
    name = tiny_towers(facts)
    towers = ('backbone', 'text', 'teacher') if facts['stage'] == 'CVLP' else ('backbone',)
    names = {f'model.{tower}.model': name for tower in towers}
    cfg.merge_from_dict(copy.deepcopy({**shrinking(facts), **names}))
    cfg.merge_from_dict(copy.deepcopy({**otherwise(facts, cfg), **(options or {})}))
    return cfg


def build(cfg: Config, facts: dict, tensors: dict) -> torch.nn.Module:
    """The config's model with the trajectory's first weights."""
    model = MODELS.build(cfg.model)
    start = part(tensors, 'init')
    means = [n for n in start if n.endswith('running_mean')]  # whose counters are not recorded
    start.update({n.replace('running_mean', 'num_batches_tracked'): torch.tensor(0) for n in means})
    if facts['stage'] == 'LGR':
        fill(model, from_vlltr_recognition(dict(model=start), 'the trajectory', facts['sentences']), 'the trajectory')
        return model.train()
    fill(model, from_vlltr_pretraining(dict(model=start), 'the trajectory'), 'the trajectory')
    teacher = from_vlltr_pretraining(dict(model=part(tensors, 'teacher')), 'the teacher').state
    model.teacher.backbone.load_state_dict(below(teacher, 'backbone.'), strict=False)
    model.teacher.text.load_state_dict(below(teacher, 'head.text.'), strict=False)
    counts = tensors['counts']
    model.table = TokenTable(
        tensors['tokens'].int(), counts, [[f'{c} {m}' for m in range(n)] for c, n in enumerate(counts)]
    )
    return model.train()


def part(tensors: dict, name: str) -> dict:
    """Tensors below a name of the trajectory."""
    return below(tensors, f'{name}.')


def below(tensors: dict, prefix: str) -> dict:
    """Tensors whose names begin with a prefix, without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def samples_of(step: int, model, facts: dict, tensors: dict) -> list[DataSample]:
    """Data samples of a step, with mixed targets in stage 2 as mixup and cutmix of the preprocessor make them."""
    samples = [DataSample().set_gt_label(int(y)) for y in tensors['labels'][step]]
    if facts['stage'] == 'CVLP':
        rows = model.table.offsets[tensors['labels'][step]] + tensors['picks'][step]
        model.draw_sentences = lambda labels: rows
        return samples
    # The recorded targets are smoothed already; the config's loss will smooth them.
    smoothing, classes = facts['label_smoothing'], facts['classes']
    for sample, soft in zip(samples, tensors['soft_targets'][step]):
        sample.set_gt_score((soft.double() - smoothing / classes).float() / (1 - smoothing))
    return samples


def decays(optimizer, model, theirs: dict[str, str], facts: dict) -> list[str]:
    """Parameters of ours that are in a group of another weight decay than theirs."""
    ours = {id(p): g['weight_decay'] for g in optimizer.param_groups for p in g['params']}
    own = {n: ours.get(id(p)) for n, p in model.named_parameters()}
    wanted = {n: g['weight_decay'] for g in facts['parameter_groups'] for n in g['parameters']}
    return [n for n, decay in wanted.items() if n in theirs and own[theirs[n]] != decay]


def rate_error(optimizer, model, theirs: dict[str, str], facts: dict, epoch: int) -> float:
    """Largest relative error of the learning rates of an epoch, over all parameters."""
    rates = {id(p): g['lr'] for g in optimizer.param_groups for p in g['params']}
    own = {n: rates.get(id(p), math.inf) for n, p in model.named_parameters()}
    groups = zip(facts['parameter_groups'], facts['learning_rates_by_epoch'][epoch])
    pairs = [(own[theirs[n]], lr) for group, lr in groups for n in group['parameters'] if n in theirs]
    return max(abs(ours - lr) / lr for ours, lr in pairs)


def published_names(facts: dict, tensors: dict, model) -> dict[str, str]:
    """The published name of every weight to ours."""
    names = part(tensors, 'init')
    if facts['stage'] == 'LGR':
        rules = {
            'visual.': 'backbone.visual.', 'text_block.attn.norm1q.': 'head.norm_query.',
            'text_block.attn.norm1k.': 'head.norm_key.', 'text_block.attn.wq.': 'head.query.',
            'text_block.attn.wk.': 'head.key.', 'text_block.visual_fc.': 'head.mlp.', 'logit_scale': 'head.log_scale',
        }  # fmt: skip
    else:
        rules = {'visual.': 'backbone.visual.', '': 'head.text.clip.'}
    own, found = dict(model.state_dict()), {}
    for name in names:
        rule = next((r for r in rules if name.startswith(r)), None)
        if rule is not None and (ours := rules[rule] + name[len(rule) :]) in own and name not in NO_GRADIENT:
            found[name] = ours
    return found


def weight_error(name: str, ours: torch.Tensor, start: torch.Tensor, end: torch.Tensor) -> float:
    """|ours - theirs| over |theirs - start|; where theirs did not move, ours must not either."""
    ours, start, end = (t.detach().double().reshape(start.shape) for t in (ours, start, end))
    if name.endswith('in_proj_bias'):
        third = len(start) // 3
        ours, start, end = (torch.cat([t[:third], t[2 * third :]]) for t in (ours, start, end))
    moved, error = (end - start).norm().item(), (ours - end).norm().item()
    return error / moved if moved else (math.inf if error else 0.0)


def replay(path: str | Path, options: dict | None = None, targets: str = 'mixed') -> Errors:
    """Train our model on a trajectory's batches and compare.

    Args:
        path (str | Path): The ``.safetensors`` file.
        options (dict, optional): Changes of the config, to see that they are
            noticed. Defaults to None.
        targets (str): 'mixed', or 'labels' for training without what mixup
            made of the targets. Defaults to 'mixed'.

    Returns:
        Errors: By step, epoch and tensor.
    """
    facts, tensors = read(path)
    cfg = resolved(facts, options)
    model = build(cfg, facts, tensors)
    theirs = published_names(facts, tensors, model)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    schedulers = [
        PARAM_SCHEDULERS.build(dict(end=facts['epochs'], **s), default_args=dict(optimizer=wrapper))
        for s in cfg.param_scheduler
    ]
    errors = Errors(decay=decays(wrapper.optimizer, model, theirs, facts))
    for epoch in range(facts['epochs']):
        errors.rate.append(rate_error(wrapper.optimizer, model, theirs, facts, epoch))
        for step in range(epoch * facts['steps_per_epoch'], (epoch + 1) * facts['steps_per_epoch']):
            samples = samples_of(step, model, facts, tensors)
            if targets == 'labels' and facts['stage'] == 'LGR':
                samples = [DataSample().set_gt_label(int(y)) for y in tensors['labels'][step]]
            loss, _ = model.parse_losses(model(tensors['images'][step].float(), samples, mode='loss'))
            expected = facts['loss_by_step'][step]
            errors.loss.append(abs(loss.item() - expected) / abs(expected))
            wrapper.update_params(loss)
        for scheduler in schedulers:
            scheduler.step()
    own = model.state_dict()
    for name, ours in theirs.items():
        errors.weights[name] = weight_error(name, own[ours], tensors[f'init.{name}'], tensors[f'final.{name}'])
    return errors


def switches(facts: dict) -> dict[str, dict]:
    """Each setting of the published code switched off: arguments of :func:`replay`."""
    options = {'one epoch of lag': {'param_scheduler.0.lag': 0}}
    options['no decay of vectors'] = {'optim_wrapper.paramwise_cfg.decay_vectors': True}
    if facts['stage'] == 'CVLP':
        options['warm-up'] = {'param_scheduler.0.warmup_epochs': 0}
        if facts['towers'] == 'rn':
            options['mode of BatchNorm'] = {'model.backbone.norm_eval': facts['train_mode']}
        options['label smoothing'] = {'model.loss.label_smoothing': 0.0}
        options['whole rows of distillation'] = {'model.distill_loss.form': 'pair'}
        return {name: dict(options=o) for name, o in options.items()}
    options['two rates'] = {'optim_wrapper.paramwise_cfg.rates': []}
    options['label smoothing'] = {'model.head.loss.label_smooth_val': 0.0}
    if facts['image_tower_trained']:
        options['norm of G detached'] = {'model.head.detach_norm': False}
        if facts['towers'] == 'rn':
            options['mode of BatchNorm'] = {'model.backbone.norm_eval': False}
    else:
        options['frozen image tower'] = {'model.backbone.frozen': False}
    found = {name: dict(options=o) for name, o in options.items()}
    return {**found, "mixup's targets": dict(targets='labels')}


def describe(path: Path, errors: Errors) -> str:
    """Errors by step and by tensor, as lines."""
    facts, _ = read(path)
    lines = [f'{path.name}: {config_of(facts).relative_to(CONFIGS.parents[1])}']
    other = otherwise(facts, Config.fromfile(config_of(facts)))
    lines += [f'set as the trajectory, not the config, has it: {key} = {value}' for key, value in other.items()]
    lines += ['', 'step  error of the loss']
    lines += [f'{i:4d}  {e:.2e}' for i, e in enumerate(errors.loss)]
    lines += ['', 'epoch  error of the rates', *(f'{i:5d}  {e:.2e}' for i, e in enumerate(errors.rate))]
    ranked = sorted(errors.weights.items(), key=lambda item: -item[1])
    lines += ['', 'error of the weights', *(f'{e:.2e}  {n}' for n, e in ranked)]
    if errors.decay:
        lines += ['', f'of another weight decay: {", ".join(errors.decay)}']
    lines += ['', f'left out, no gradient on paper: {", ".join(NO_GRADIENT)}, the keys of in_proj_bias', '']
    bounds = f'bounds: loss {LOSS_BOUND:g}, rates {RATE_BOUND:g}, weights {WEIGHT_BOUND:g}'
    return '\n'.join([*lines, f'{"ok" if errors.right else "TOO LARGE"} ({bounds})'])


def main(argv=None) -> int:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('trajectory', nargs='+', type=Path, help='.safetensors files')
    parser.add_argument('--switch-off', action='store_true', help='also switch off each published setting once')
    args = parser.parse_args(argv)
    for path in args.trajectory:
        for file in (path, path.with_suffix('.json')):
            if not file.is_file():
                parser.error(f"'{file}' does not exist: a trajectory is a .safetensors file with a .json beside it")
    right = True
    for path in args.trajectory:
        errors = replay(path)
        right &= errors.right
        print(describe(path, errors), end='\n\n')
        if args.switch_off:
            print('| switched off | loss | rates | weights (worst) | decays | noticed |')
            print('| :-- | --: | --: | :-- | --: | :-: |')
            for name, arguments in {'nothing': {}, **switches(read(path)[0])}.items():
                errors = replay(path, **arguments)
                print(f'| {name} | {" | ".join(errors.summary())} | {"no" if errors.right else "yes"} |')
            print()
    return 0 if right else 1


if __name__ == '__main__':
    sys.exit(main())
