"""One load for two towers, activations, archives, and what is said about unfit names and files."""

import copy
import json
import logging
import os
import pickle
import re
import shutil
import weakref

import open_clip
import pytest
import torch
from mmpretrain.registry import MODELS
from open_clip.transformer import QuickGELU
from safetensors.torch import load_file, save_file
from torch import nn

from mmlt import InputError
from mmlt.checkpoints import downloads
from mmlt.models import OpenCLIPText, OpenCLIPVision, open_clip_towers
from mmlt.models.open_clip_towers import _wants_quick_gelu, looks_like_path, open_clip_tower

MODEL = 'mmlt-tiny-vit'
pytestmark = pytest.mark.filterwarnings('ignore:.torch.jit:FutureWarning')


@pytest.fixture(autouse=True)
def _other_seed(_fresh_state):
    torch.manual_seed(1)  # with the seed of clip_file a random model would have its weights


@pytest.fixture
def counts(monkeypatch):
    """How often a model was built and a file was read."""
    counts = {'built': 0, 'read': 0}

    def counting(name, function):
        def wrapper(*args, **kwargs):
            counts[name] += 1
            return function(*args, **kwargs)

        return wrapper

    monkeypatch.setattr(open_clip, 'create_model', counting('built', open_clip.create_model))
    load = open_clip_towers.open_clip_load_checkpoint
    monkeypatch.setattr(open_clip_towers, 'open_clip_load_checkpoint', counting('read', load))
    return counts


@pytest.fixture
def tag(monkeypatch, clip_file):
    """A pretrained tag of the tiny model that names the weights of ``clip_file``, trained with QuickGELU."""
    cfg = {**open_clip.get_pretrained_cfg('ViT-B-32', 'openai')}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, MODEL, {'tiny_tag': cfg})
    monkeypatch.setattr(open_clip, 'download_pretrained', lambda got: clip_file if got == cfg else None)
    monkeypatch.setattr(downloads, 'get_hf_file_metadata', lambda url: None)
    return 'tiny_tag'


class Archive(nn.Module):
    """Modules and parameters under given names, as in a model that was scripted."""

    def add(self, name, tensor):
        first, _, rest = name.partition('.')
        if not rest:
            self.register_parameter(first, nn.Parameter(tensor))
            return
        if first not in self._modules:
            self.add_module(first, Archive())
        self._modules[first].add(rest, tensor)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@pytest.fixture(scope='session')
def archive_file(tmp_path_factory, clip_file):
    """A TorchScript archive like those of OpenAI: half precision, and three integers among the weights."""
    archive = Archive()
    for name, tensor in load_file(clip_file).items():
        archive.add(name, tensor)
    archive.half()
    for name, value in dict(input_resolution=32, context_length=16, vocab_size=49408).items():
        archive.register_buffer(name, torch.tensor(value))
    path = tmp_path_factory.mktemp('archive') / 'tiny.pt'
    torch.jit.script(archive).save(str(path))
    return str(path)


def classifier(pretrained, **text):
    return MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=dict(type='mmlt.OpenCLIPVision', model=MODEL, pretrained=pretrained),
            head=dict(
                type='mmlt.TextClsHead',
                text=dict(type='mmlt.OpenCLIPText', model=MODEL, pretrained=pretrained, **text),
                classes=['cat', 'dog'],
            ),
        )
    )


def open_clip_state(vision, text):
    return {**{f'visual.{k}': v for k, v in vision.visual.state_dict().items()}, **text.clip.state_dict()}


def assert_weights_are_those_of(path, vision, text):
    state, expected = open_clip_state(vision, text), load_file(path)
    assert state.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(state[name], tensor), name


# One load, two towers


def test_both_towers_come_from_one_model_and_one_read(clip_file, counts):
    vision, text = OpenCLIPVision(MODEL, clip_file), OpenCLIPText(MODEL, clip_file)
    assert vision._towers is text._towers
    assert counts == {'built': 1, 'read': 0}  # a checkpoint may come, so nothing is read yet
    vision.init_weights()
    text.init_weights()
    assert counts == {'built': 1, 'read': 1}
    assert_weights_are_those_of(clip_file, vision, text)
    assert vision._towers.clip is None


def test_order_of_the_towers_does_not_matter(clip_file, counts):
    text, vision = OpenCLIPText(MODEL, clip_file), OpenCLIPVision(MODEL, clip_file)
    text.init_weights()
    vision.init_weights()
    assert counts == {'built': 1, 'read': 1}
    assert_weights_are_those_of(clip_file, vision, text)


def test_weights_are_not_there_until_init_weights(clip_file):
    vision = OpenCLIPVision(MODEL, clip_file)
    expected = load_file(clip_file)['visual.conv1.weight']
    assert vision.visual.conv1.weight.isnan().all()
    vision.init_weights()
    assert torch.equal(vision.visual.conv1.weight, expected)


def test_the_halves_share_nothing():
    vision, text = OpenCLIPVision(MODEL), OpenCLIPText(MODEL)
    assert not {id(p) for p in vision.parameters()} & {id(p) for p in text.parameters()}
    assert not any(name.startswith('clip.visual') for name, _ in text.named_parameters())
    assert {id(p) for p in vision._towers.clip.parameters()} == {
        id(p) for p in [*vision.parameters(), *text.parameters()]
    }


def test_a_second_model_gets_its_own(clip_file, counts):
    first = OpenCLIPVision(MODEL, clip_file), OpenCLIPText(MODEL, clip_file)
    second = OpenCLIPVision(MODEL, clip_file), OpenCLIPText(MODEL, clip_file)
    assert counts['built'] == 2
    assert second[0]._towers is second[1]._towers is not first[0]._towers
    for tower in (*first, *second):
        tower.init_weights()
    assert counts == {'built': 2, 'read': 2}
    with torch.no_grad():
        for p in first[0].parameters():
            p.zero_()
        for p in first[1].parameters():
            p.zero_()
    assert_weights_are_those_of(clip_file, *second)


def test_a_tower_is_handed_out_once(clip_file):
    first, second = OpenCLIPVision(MODEL, clip_file), OpenCLIPVision(MODEL, clip_file)
    assert first._towers is not second._towers
    assert first.visual is not second.visual


def test_after_loading_a_half_is_not_handed_out(clip_file):
    vision = OpenCLIPVision(MODEL, clip_file)
    vision.init_weights()
    text = OpenCLIPText(MODEL, clip_file)
    assert text._towers is not vision._towers
    text.init_weights()
    assert_weights_are_those_of(clip_file, vision, text)


@pytest.mark.parametrize('other', [dict(model='mmlt-tiny-rn'), dict(pretrained=None), dict(quick_gelu=True)])
def test_other_arguments_give_another_model(clip_file, other):
    arguments = dict(model=MODEL, pretrained=clip_file)
    vision, text = OpenCLIPVision(**arguments), OpenCLIPText(**{**arguments, **other})
    assert vision._towers is not text._towers


def test_image_size_joins_or_parts(clip_file):
    vision, text = OpenCLIPVision(MODEL, clip_file, image_size=48), OpenCLIPText(MODEL, clip_file)
    assert vision._towers is text._towers
    text, vision = OpenCLIPText(MODEL, clip_file), OpenCLIPVision(MODEL, clip_file, image_size=32)
    assert vision._towers is text._towers
    text, vision = OpenCLIPText(MODEL, clip_file), OpenCLIPVision(MODEL, clip_file, image_size=48)
    assert vision._towers is not text._towers
    vision.init_weights()
    text.init_weights()
    assert vision(torch.zeros(1, 3, 48, 48))[0].shape == (1, 64)
    expected = load_file(clip_file)['text_projection']
    assert torch.equal(text.clip.text_projection, expected)


def test_an_unused_model_is_not_kept_alive(clip_file):
    tower, towers = open_clip_tower('image', MODEL, clip_file)
    gone = weakref.ref(towers)
    del tower, towers
    assert gone() is None


def test_moved_towers_are_still_filled(clip_file):
    """Runner moves a model to its device before it initialises the weights."""
    vision, text = OpenCLIPVision(MODEL, clip_file).double(), OpenCLIPText(MODEL, clip_file).double()
    vision.init_weights()
    text.init_weights()
    expected = load_file(clip_file)
    for name, tensor in open_clip_state(vision, text).items():
        assert tensor.dtype == torch.float64
        assert torch.equal(tensor, expected[name].double()), name


# In MMPretrain's classifier


def test_init_weights_of_a_classifier_loads_and_leaves_the_weights(clip_file, counts):
    model = classifier(clip_file)
    model.init_weights()
    assert counts == {'built': 1, 'read': 1}
    assert_weights_are_those_of(clip_file, model.backbone, model.head.text)
    model.init_weights()
    assert counts == {'built': 1, 'read': 1}
    assert_weights_are_those_of(clip_file, model.backbone, model.head.text)


def test_init_weights_after_training_changes_nothing(clip_file):
    model = classifier(clip_file)
    model.init_weights()
    with torch.no_grad():
        model.backbone.visual.conv1.weight.fill_(0.25)
    model.backbone.init_weights()
    assert bool((model.backbone.visual.conv1.weight == 0.25).all())


def test_logit_scale_is_fixed_unless_asked_for(clip_file):
    model = classifier(clip_file)
    fixed = [name for name, p in model.named_parameters() if not p.requires_grad]
    assert fixed == ['head.text.clip.logit_scale']


def test_deepcopy_of_loaded_towers(clip_file):
    model = classifier(clip_file)
    model.init_weights()
    twin = copy.deepcopy(model)
    assert_weights_are_those_of(clip_file, twin.backbone, twin.head.text)
    x = torch.randn(2, 3, 32, 32)
    expected = model.head(model.backbone(x))
    with torch.no_grad():
        for p in twin.parameters():
            p.mul_(0.5)
    assert_weights_are_those_of(clip_file, model.backbone, model.head.text)
    assert torch.equal(model.head(model.backbone(x)), expected)
    twin.eval()
    assert (twin.head(twin.backbone(x)) - expected).abs().max() > 1e-2


def test_deepcopy_before_init_weights_is_filled_by_its_own(clip_file):
    model = classifier(clip_file)
    twin = copy.deepcopy(model)
    twin.init_weights()
    assert_weights_are_those_of(clip_file, twin.backbone, twin.head.text)
    model.init_weights()
    assert_weights_are_those_of(clip_file, model.backbone, model.head.text)


# QuickGELU


def activations(tower):
    return {type(m) for m in tower.modules() if isinstance(m, (QuickGELU, nn.GELU))}


def test_quick_gelu_by_tag():
    assert _wants_quick_gelu('ViT-B-32', 'openai')
    assert _wants_quick_gelu('RN50', 'openai')
    assert not _wants_quick_gelu('ViT-B-32', 'laion2b_s34b_b79k')
    assert not _wants_quick_gelu('ViT-B-32', None)


def test_quick_gelu_by_file(archive_file, clip_file, tmp_path):
    assert _wants_quick_gelu(MODEL, archive_file)
    assert not _wants_quick_gelu(MODEL, clip_file)
    zipped = tmp_path / 'zipped.pt'  # torch.save's format is a zip file too
    torch.save(load_file(clip_file), zipped)
    assert not _wants_quick_gelu(MODEL, str(zipped))
    assert not _wants_quick_gelu(MODEL, str(tmp_path / 'missing.pt'))


def test_quick_gelu_is_built_for_a_tag_that_asks_for_it(tag, clip_file):
    vision, text = OpenCLIPVision(MODEL, tag), OpenCLIPText(MODEL, tag)
    assert activations(vision) == activations(text) == {QuickGELU}
    vision.init_weights()
    assert_weights_are_those_of(clip_file, vision, text)
    assert activations(OpenCLIPVision(MODEL, clip_file)) == {nn.GELU}


def test_quick_gelu_by_hand_where_the_weights_do_not_tell(clip_file):
    for build in (OpenCLIPVision, OpenCLIPText):
        assert activations(build(MODEL, clip_file, quick_gelu=True)) == {QuickGELU}
        assert activations(build(MODEL, clip_file, quick_gelu=False)) == {nn.GELU}
        assert activations(build(MODEL, quick_gelu=True)) == {QuickGELU}


def test_quick_gelu_that_contradicts_the_weights(tag, archive_file, monkeypatch):
    assert activations(OpenCLIPVision(MODEL, tag, quick_gelu=True)) == {QuickGELU}
    for pretrained in (tag, archive_file):
        with pytest.raises(InputError, match=rf"quick_gelu=False contradicts .*'{pretrained}'.* with QuickGELU"):
            OpenCLIPVision(MODEL, pretrained, quick_gelu=False)
    cfg = open_clip.pretrained._PRETRAINED[MODEL][tag]
    monkeypatch.setitem(cfg, 'quick_gelu', False)
    with pytest.raises(InputError, match='quick_gelu=True contradicts .* without QuickGELU'):
        OpenCLIPText(MODEL, tag, quick_gelu=True)


def test_quick_gelu_of_a_models_config(monkeypatch, clip_file):
    config = {**open_clip.get_model_config(MODEL), 'quick_gelu': True}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, 'tiny-quickgelu', config)
    for pretrained in (None, clip_file):
        assert activations(OpenCLIPVision('tiny-quickgelu', pretrained)) == {QuickGELU}
        with pytest.raises(InputError, match="contradicts .*'tiny-quickgelu'"):
            OpenCLIPVision('tiny-quickgelu', pretrained, quick_gelu=False)


def test_a_contradiction_without_weights_does_not_name_weights(monkeypatch):
    config = {**open_clip.get_model_config(MODEL), 'quick_gelu': True}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, 'tiny-quickgelu', config)
    with pytest.raises(InputError) as error:
        OpenCLIPVision('tiny-quickgelu', quick_gelu=False)
    assert "'None'" not in str(error.value)


@pytest.fixture
def warnings_of(monkeypatch):
    """What is logged as a warning while a tower is loaded."""
    told = []
    monkeypatch.setattr(
        open_clip_towers,
        'print_log',
        lambda text, logger, level=logging.INFO: told.append(text) if level >= logging.WARNING else None,
    )

    def load(tower):
        told.clear()
        tower.init_weights()
        return list(told)

    return load


def test_assumed_activation_is_told_once(tag, archive_file, clip_file, warnings_of):
    """A plain file of the same weights as the tag cannot say that they need QuickGELU."""
    vision, text = OpenCLIPVision(MODEL, clip_file), OpenCLIPText(MODEL, clip_file)
    assert activations(vision) == {nn.GELU}
    (line,) = warnings_of(vision)
    assert f"'{clip_file}' does not tell whether '{MODEL}' was trained with QuickGELU: GELU is assumed" in line
    assert f'those of {tag}, set quick_gelu=True on both towers; quick_gelu=False confirms' in line
    assert not warnings_of(text)
    for pretrained, quick_gelu in ((clip_file, True), (clip_file, False), (tag, None), (archive_file, None)):
        assert not warnings_of(OpenCLIPVision(MODEL, pretrained, quick_gelu=quick_gelu))


def test_no_activation_is_assumed_where_no_tag_has_the_other(clip_file, warnings_of):
    assert not warnings_of(OpenCLIPVision(MODEL, clip_file))


def test_tags_with_quick_gelu():
    assert 'openai' in open_clip_towers.quick_gelu_tags('ViT-B-16')
    assert 'laion2b_s34b_b88k' not in open_clip_towers.quick_gelu_tags('ViT-B-16')
    assert not open_clip_towers.quick_gelu_tags('ViT-B-16-quickgelu')
    assert open_clip_towers._quick_gelu_setting('RN50') == ("quick_gelu=True on both towers, or model='RN50-quickgelu'")


# Kinds of files


def test_torchscript_archive(archive_file, clip_file):
    vision, text = OpenCLIPVision(MODEL, archive_file), OpenCLIPText(MODEL, archive_file)
    assert activations(vision) == activations(text) == {QuickGELU}
    vision.init_weights()
    expected = load_file(clip_file)
    state = open_clip_state(vision, text)
    assert state.keys() == expected.keys()
    for name, tensor in state.items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, expected[name].half().float()), name


def test_torchscript_archive_at_another_image_size(archive_file, clip_file):
    from_archive = OpenCLIPVision(MODEL, archive_file, image_size=48)
    from_archive.init_weights()
    from_file = OpenCLIPVision(MODEL, clip_file, image_size=48)
    from_file.init_weights()
    difference = from_archive.visual.positional_embedding - from_file.visual.positional_embedding
    assert difference.abs().max() < 1e-3


def test_torchscript_archive_for_the_custom_layout(archive_file, clip_file, monkeypatch):
    config = {**open_clip.get_model_config(MODEL), 'custom_text': True}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, 'tiny-custom', config)
    custom, plain = OpenCLIPText('tiny-custom', archive_file), OpenCLIPText(MODEL, archive_file)
    custom.init_weights()
    plain.init_weights()
    assert hasattr(custom.clip, 'text') and not hasattr(plain.clip, 'text')
    tokens = plain.tokenize(['a photo of a cat.', 'a dog'])
    assert torch.equal(custom(tokens), plain(tokens))
    assert torch.equal(plain.clip.text_projection, load_file(clip_file)['text_projection'].half().float())


@pytest.mark.parametrize('wrap', [lambda s: s, lambda s: {'state_dict': {f'module.{k}': v for k, v in s.items()}}])
def test_pytorch_files(clip_file, tmp_path, wrap):
    path = str(tmp_path / 'tiny.pt')
    torch.save(wrap(load_file(clip_file)), path)
    vision, text = OpenCLIPVision(MODEL, path), OpenCLIPText(MODEL, path)
    vision.init_weights()
    assert_weights_are_those_of(clip_file, vision, text)


def local_dir(tmp_path, clip_file):
    (tmp_path / 'open_clip_config.json').write_text(json.dumps({'model_cfg': open_clip.get_model_config(MODEL)}))
    shutil.copy(clip_file, tmp_path / 'open_clip_model.safetensors')
    return f'local-dir:{tmp_path}'


def test_local_dir(tmp_path, clip_file):
    name = local_dir(tmp_path, clip_file)
    vision, text = OpenCLIPVision(name), OpenCLIPText(name)
    assert vision._towers is text._towers
    assert vision.out_channels == text.out_channels == 64
    vision.init_weights()
    assert_weights_are_those_of(clip_file, vision, text)


@pytest.mark.parametrize('form', ['file', 'folder'])
def test_resnet_at_another_image_size(tmp_path, form):
    """The mean's embedding stays, the grid is resized: a linear one stays linear."""
    model = open_clip.create_model('mmlt-tiny-rn', force_image_size=128)
    rows = torch.arange(4.0)[:, None].expand(4, 4)
    positions = torch.cat([torch.full((1,), 9.0), rows.flatten()])[:, None].expand(-1, 512).contiguous()
    model.visual.attnpool.positional_embedding.data.copy_(positions)
    file = tmp_path / 'w.safetensors'
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, file)
    config = open_clip.get_model_config('mmlt-tiny-rn')
    config['vision_cfg']['image_size'] = 128
    (tmp_path / 'open_clip_config.json').write_text(json.dumps(dict(model_cfg=config)))
    source = dict(model='mmlt-tiny-rn', pretrained=str(file)) if form == 'file' else dict(model=f'local-dir:{tmp_path}')
    vision = OpenCLIPVision(**source, image_size=256).eval()
    vision.init_weights()
    resized = vision.visual.attnpool.positional_embedding.detach()
    assert (resized[0] == 9).all()
    grid = resized[1:, 0].reshape(8, 8)
    assert (grid - grid[:, :1]).abs().max() <= 1e-5
    assert (grid[2:6, 0] - torch.tensor([0.75, 1.25, 1.75, 2.25])).abs().max() < 0.1
    assert vision(torch.zeros(1, 3, 256, 256))[0].isfinite().all()


def test_local_dir_at_another_image_size(tmp_path, clip_file):
    vision = OpenCLIPVision(local_dir(tmp_path, clip_file), image_size=48)
    vision.init_weights()
    expected = OpenCLIPVision(MODEL, clip_file, image_size=48)
    expected.init_weights()
    assert vision.visual.positional_embedding.shape == (37, 64)
    assert all(torch.equal(v, expected.state_dict()[k]) for k, v in vision.state_dict().items())


def test_local_dir_without_or_with_other_weights(tmp_path, clip_file):
    name = local_dir(tmp_path, clip_file)
    state = load_file(clip_file)
    state['text_projection'] = torch.zeros(64, 32)
    save_file(state, str(tmp_path / 'open_clip_model.safetensors'))
    with pytest.raises(InputError, match=re.escape(f"'{name}' could not be loaded: RuntimeError: Error(s) in")):
        OpenCLIPVision(name).init_weights()
    (tmp_path / 'open_clip_model.safetensors').unlink()
    with pytest.raises(InputError, match=re.escape(f"'{name}' could not be loaded")):
        OpenCLIPVision(name).init_weights()


def test_folder_in_another_format(tmp_path, clip_file):
    """As openai/clip-vit-base-patch16 lies on the hub."""
    shutil.copy(clip_file, tmp_path / 'model.safetensors')
    with pytest.raises(InputError, match=f"'{tmp_path}' is no folder of open_clip: it has no open_clip_config.json"):
        OpenCLIPVision(f'local-dir:{tmp_path}')
    (tmp_path / 'config.json').write_text('{"model_type": "clip"}')
    with pytest.raises(InputError, match=f"'{tmp_path}' is a folder in transformers' format: .*weight file as pretr"):
        OpenCLIPVision(f'local-dir:{tmp_path}')
    vision = OpenCLIPVision(MODEL, str(tmp_path))
    with pytest.raises(InputError, match=f"is a folder, no weight file: use model='local-dir:{tmp_path}' without"):
        vision.init_weights()


def test_repository_in_another_format(monkeypatch):
    def missing(*args, **kwargs):
        raise FileNotFoundError('Failed to download file (open_clip_config.json)')

    monkeypatch.setattr(open_clip.factory, 'download_pretrained_from_hf', missing)
    monkeypatch.setattr(downloads, 'get_hf_file_metadata', lambda url: None)
    with pytest.raises(
        InputError, match="must have an open_clip_config.json, which .* transformers' format .* have not"
    ):
        OpenCLIPVision('hf-hub:openai/clip-vit-base-patch16')


def test_local_dir_with_broken_weights(tmp_path, clip_file):
    name = local_dir(tmp_path, clip_file)
    vision = OpenCLIPVision(name)
    (tmp_path / 'open_clip_model.safetensors').write_bytes(b'no weights')
    with pytest.raises(InputError, match=re.escape(f"'{name}' could not be loaded: it is damaged")):
        vision.init_weights()


def test_missing_local_dir(tmp_path):
    name = f'local-dir:{tmp_path / "nowhere"}'
    with pytest.raises(InputError, match='nowhere'):
        OpenCLIPVision(name)


def test_local_dir_with_a_broken_config(tmp_path):
    name = f'local-dir:{tmp_path}'
    (tmp_path / 'open_clip_config.json').write_text('{"model_cfg": ')
    with pytest.raises(InputError, match=f"config of the open_clip model '{name}' could not be read"):
        OpenCLIPVision(name)
    (tmp_path / 'open_clip_config.json').write_text('{"embed_dim": 64}')
    with pytest.raises(InputError, match=f"open_clip model '{name}' could not be built .ValueError: Could not load"):
        OpenCLIPVision(name)


@pytest.mark.parametrize(
    ('pretrained', 'expected'),
    [('openai', False), ('laion2b_s34b_b79k', False), ('a/b', True), ('weights.pt', True), ('w.safetensors', True)],
)
def test_looks_like_path(pretrained, expected):
    assert looks_like_path(pretrained) == expected


# What cannot be used


@pytest.mark.parametrize('build', [OpenCLIPVision, OpenCLIPText])
def test_unknown_model(build):
    with pytest.raises(InputError, match=r"no model 'ViT-B-17'\. Near it: ViT-B-.*open_clip\.add_model_config"):
        build('ViT-B-17')
    with pytest.raises(InputError, match=r'Near it: .*\bViT-B-16\b'):
        build('VitB16')  # not by its first letters
    with pytest.raises(InputError, match=r"no model 'zzz'\. See open_clip\.list_models"):
        build('zzz')


@pytest.mark.parametrize('build', [OpenCLIPVision, OpenCLIPText])
def test_unknown_tag(build):
    with pytest.raises(InputError, match="'RN50' has no pretrained tag 'opnai'. Its tags: openai, .*given by its path"):
        build('RN50', 'opnai')
    with pytest.raises(InputError, match=f"'{MODEL}' has no pretrained tag 'openai'. Its tags: none"):
        build(MODEL, 'openai')


def test_missing_file():
    tower = OpenCLIPVision(MODEL, '/nowhere/clip.pt')  # a config may be built without its weights
    with pytest.raises(InputError, match=f"weight file '/nowhere/clip.pt' for .*'{MODEL}' does not exist. Give"):
        tower.init_weights()


def test_a_second_try_does_not_pass_over_a_missing_file(tmp_path, clip_file):
    path = tmp_path / 'late.safetensors'
    vision, text = OpenCLIPVision(MODEL, str(path)), OpenCLIPText(MODEL, str(path))
    for _ in range(2):
        with pytest.raises(InputError, match=r"late\.safetensors' .*does not exist"):
            vision.init_weights()
    shutil.copy(clip_file, path)
    vision.init_weights()
    assert_weights_are_those_of(clip_file, vision, text)


def test_weights_of_another_architecture(clip_file):
    tower = OpenCLIPVision('mmlt-tiny-rn', clip_file)
    with pytest.raises(InputError, match=f"'{re.escape(clip_file)}' do not fit .*'mmlt-tiny-rn'.*give the model name"):
        tower.init_weights()


def test_torchscript_archive_of_another_architecture(archive_file):
    tower = OpenCLIPText('mmlt-tiny-rn', archive_file)
    with pytest.raises(InputError, match="tiny.pt' do not fit .*'mmlt-tiny-rn'"):
        tower.init_weights()


def test_weights_of_another_width(clip_file, tmp_path):
    state = load_file(clip_file)
    state['text_projection'] = torch.zeros(64, 32)
    save_file(state, str(tmp_path / 'narrow.safetensors'))
    tower = OpenCLIPVision(MODEL, str(tmp_path / 'narrow.safetensors'))
    with pytest.raises(InputError, match=f"narrow.safetensors' do not fit .*'{MODEL}'.*text_projection"):
        tower.init_weights()


@pytest.mark.parametrize('name', ['broken.pt', 'broken.safetensors'])
def test_a_file_that_holds_no_weights(tmp_path, name):
    (tmp_path / name).write_text('<html>404</html>')
    tower = OpenCLIPVision(MODEL, str(tmp_path / name))
    why = 'it is no file of weights' if name.endswith('pt') else 'it is damaged, perhaps cut off'
    with pytest.raises(InputError, match=f"{name}' of open_clip model '{MODEL}' cannot be read: {why}"):
        tower.init_weights()


def test_files_that_are_empty_or_cut(tmp_path, clip_file):
    weights = load_file(clip_file)
    torch.save(weights, tmp_path / 'whole.pt')
    torch.save(weights, tmp_path / 'old.pt', _use_new_zipfile_serialization=False)
    shutil.copy(clip_file, tmp_path / 'whole.safetensors')
    for name in ('whole.pt', 'old.pt', 'whole.safetensors'):
        content = (tmp_path / name).read_bytes()
        for size, why in ((0, 'it is empty'), (100, 'it is damaged'), (len(content) // 2, 'it is damaged')):
            (tmp_path / name).write_bytes(content[:size])
            with pytest.raises(InputError, match=f"{name}' of open_clip model '{MODEL}' cannot be read: {why}"):
                OpenCLIPVision(MODEL, str(tmp_path / name)).init_weights()


@pytest.mark.parametrize('protocol', [2, 4])
@pytest.mark.filterwarnings('ignore:Detected pickle protocol')
def test_a_pickle_that_asks_for_code(tmp_path, protocol):
    path = tmp_path / 'evil.pt'
    path.write_bytes(pickle.dumps({'visual.proj': os.system}, protocol=protocol))
    with pytest.raises(InputError, match="evil.pt' .* asks for .*, which could run") as error:
        OpenCLIPVision(MODEL, str(path)).init_weights()
    assert 'weights_only' not in str(error.value) and 'model name' not in str(error.value)


def test_a_checkpoint_of_ours(tmp_path, clip_file):
    path = str(tmp_path / 'epoch_1.pth')
    torch.save(dict(meta={}, state_dict=classifier(clip_file).state_dict()), path)
    with pytest.raises(InputError, match=f"'{path}' is a checkpoint of a training, .*mmlt to-open-clip"):
        OpenCLIPVision(MODEL, path).init_weights()


@pytest.mark.parametrize('error', [RuntimeError('Failed to resolve host\nlong story'), TimeoutError()])
def test_a_tag_without_network_says_the_way_out(tag, monkeypatch, error):
    def download(cfg):
        raise error

    monkeypatch.setattr(open_clip, 'download_pretrained', download)
    tower = OpenCLIPVision(MODEL, tag)
    with pytest.raises(
        InputError, match=f"'{tag}' of .*'{MODEL}' could not be fetched .*give its path as pretrained, with "
    ):
        tower.init_weights()
    with pytest.raises(InputError, match='with quick_gelu=True on both towers, which these weights need'):
        tower.init_weights()
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED[MODEL][tag], 'quick_gelu', False)
    with pytest.raises(InputError, match=r'give its path as pretrained\.$'):
        OpenCLIPVision(MODEL, tag).init_weights()


def test_a_folder_of_the_tags_name_does_not_hide_the_tag(tag, tmp_path, monkeypatch, clip_file):
    (tmp_path / tag).mkdir()
    monkeypatch.chdir(tmp_path)
    vision, text = OpenCLIPVision(MODEL, tag), OpenCLIPText(MODEL, tag)
    vision.init_weights()
    assert_weights_are_those_of(clip_file, vision, text)


def test_open_clips_log_level_is_restored():
    before = logging.root.manager.disable
    with pytest.raises(RuntimeError), open_clip_towers._quiet():
        assert logging.root.manager.disable == logging.WARNING
        raise RuntimeError
    assert logging.root.manager.disable == before
