"""tools/infer.py: top classes of files and folders, the sentences that decided, and what cannot be read."""

import json
import os
import pickle
from pathlib import Path

import mmcv
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmpretrain.registry import MODELS
from PIL import Image

from mmlt import InputError
from mmlt.apis import find_pictures, get_model, inference
from mmlt.cli import infer as infer_tool
from mmlt.datasets.pictures import PICTURE_SUFFIXES
from mmlt.utils.text_tensor import text_to_tensor

CLASSES = ['apple', 'pear', 'plum']


@pytest.fixture
def lgr(tmp_path):
    """Config and checkpoint of a model with the LGR head."""
    model = dict(
        type='ImageClassifier',
        backbone=dict(type='mmlt.OpenCLIPVision', model='mmlt-tiny-vit'),
        head=dict(type='mmlt.LGRHead', num_classes=3, in_channels=64),
        data_preprocessor=dict(type='mmlt.CLIPDataPreprocessor'),
    )
    pipeline = [
        dict(type='LoadImageFromFile', imdecode_backend='pillow'),
        dict(type='Resize', scale=(32, 32)),
        dict(type='PackInputs'),
    ]
    dataset = dict(type='mmlt.LongTailedDataset', ann_file='t.txt', pipeline=pipeline)
    (tmp_path / 'lgr.py').write_text(f'model = {model!r}\ntest_dataloader = dict(dataset={dataset!r})\n')
    state = MODELS.build(model).state_dict()
    state['head.anchor_features'] = torch.randn(3, 4, 64)
    state['head.anchor_counts'] = torch.tensor([4, 4, 4])
    texts = [[f'The {c} has [{i}] seeds.' for i in range(4)] for c in CLASSES]
    state['head.anchor_texts'] = text_to_tensor(json.dumps(texts))
    torch.save(dict(meta=dict(dataset_meta=dict(classes=CLASSES)), state_dict=state), tmp_path / 'lgr.pth')
    return str(tmp_path / 'lgr.py'), str(tmp_path / 'lgr.pth')


def test_inference_is_the_models_prediction(lgr, picture_folder):
    model = get_model(*lgr)
    path = str(picture_folder / 'images/plum/0.png')
    (result,) = inference(model, path, top=2, explain=3)
    image = mmcv.imresize(mmcv.imread(path, backend='pillow'), (32, 32))
    data = model.data_preprocessor(dict(inputs=torch.from_numpy(image.transpose(2, 0, 1).copy())[None]))
    (expected,) = model.head.predict(model.extract_feat(data['inputs']), explain=3)
    assert result['image'] == path
    assert result['top'][0] == (CLASSES[int(expected.pred_label)], pytest.approx(float(expected.pred_score.max())))
    assert len(result['top']) == 2 and result['top'][0][1] >= result['top'][1][1]
    (weights, sentences), (own, texts) = zip(*result['anchor_sentences']), zip(*expected.anchor_sentences)
    assert sentences == texts and len(texts) == 3 and weights == pytest.approx(own, abs=1e-5)
    assert model.head.explain == 0  # as it was
    from_array = inference(model, [mmcv.imread(path, backend='pillow')])[0]
    assert from_array['image'] is None and from_array['top'][0][0] == result['top'][0][0]
    assert len(from_array['top']) == 3  # there are no more classes


def test_command(lgr, picture_folder, capsys, monkeypatch):
    monkeypatch.setenv('COLUMNS', '200')
    config, weights = lgr
    folder = picture_folder / 'images/pear'
    infer_tool.main([str(folder), '--config', config, '--checkpoint', weights, '--explain', '2', '--top', '2'])
    printed = capsys.readouterr().out
    assert printed.count('attention') == 2 * len(list(folder.glob('*.png')))
    assert f'{folder / "0.png"}' in printed and '] seeds.' in printed  # brackets are no markup
    assert any(c in printed for c in CLASSES) and '%' in printed


def test_command_explains_by_itself(lgr, picture_folder, capsys, monkeypatch):
    monkeypatch.setenv('COLUMNS', '200')
    config, weights = lgr
    arguments = [str(picture_folder / 'images/pear/0.png'), '--config', config, '--checkpoint', weights]
    infer_tool.main(arguments)
    assert capsys.readouterr().out.count('attention') == 3
    infer_tool.main([*arguments, '--explain', '0'])
    assert 'attention' not in capsys.readouterr().out


def test_command_without_anchor_sentences(lgr, picture_folder, capsys, tmp_path):
    cfg = Config.fromfile(lgr[0])
    cfg.model.head = dict(type='LinearClsHead', num_classes=3, in_channels=64)
    cfg.dump(str(tmp_path / 'linear.py'))
    state = MODELS.build(cfg.model).state_dict()
    torch.save(dict(meta=dict(dataset_meta=dict(classes=CLASSES)), state_dict=state), tmp_path / 'linear.pth')
    picture = str(picture_folder / 'images/pear/0.png')
    infer_tool.main([picture, '--config', str(tmp_path / 'linear.py'), '--checkpoint', str(tmp_path / 'linear.pth')])
    printed = capsys.readouterr().out
    assert '%' in printed and 'attention' not in printed


@pytest.mark.parametrize(
    ('arguments', 'sentence'),
    [
        (['--device', 'gpu'], "device 'gpu' cannot be used: give 'cpu'"),
        (['--device', 'cuda:99'], "device 'cuda:99' cannot be used: give 'cpu'"),
        (['--cfg-options', 'model.nothing=3'], "model.nothing: ImageClassifier has no argument 'nothing'"),
        (['--cfg-options', 'model.type=Nothing'], "model.type: there is no model 'Nothing'"),
        (['--cfg-options', 'model.backbone.model.x=3'], 'do not fit the config'),
    ],
)
def test_arguments_that_cannot_be_used(lgr, picture_folder, arguments, sentence):
    picture = str(picture_folder / 'images/pear/0.png')
    with pytest.raises(SystemExit, match=sentence):
        infer_tool.main([picture, '--config', lgr[0], '--checkpoint', lgr[1], *arguments])


def test_config_that_cannot_be_read(tmp_path):
    (tmp_path / 'broken.py').write_text('model = dict(')
    (tmp_path / 'classes.txt').write_text('cat')
    for name, error in (('broken.py', 'SyntaxError'), ('classes.txt', 'OSError')):
        with pytest.raises(SystemExit, match=rf"{name}' could not be read \({error}.*: .*give a .py file"):
            infer_tool.main(['x.png', '--config', str(tmp_path / name)])


@pytest.mark.filterwarnings('ignore:Detected pickle protocol')
def test_checkpoint_that_asks_for_code(lgr, tmp_path):
    for protocol in (2, 4):
        (tmp_path / 'evil.pth').write_bytes(pickle.dumps(dict(state_dict=os.system), protocol=protocol))
        with pytest.raises(SystemExit, match='asks for .*, which could run code') as error:
            infer_tool.main(['x.png', '--config', lgr[0], '--checkpoint', str(tmp_path / 'evil.pth')])
        assert 'weights_only' not in str(error.value)


def test_paths(lgr, picture_folder):
    model = get_model(*map(Path, lgr))
    path = picture_folder / 'images/plum/0.png'
    assert inference(model, path) == inference(model, [path]) == inference(model, str(path))
    assert inference(model, path)[0]['image'] == str(path)
    with pytest.raises(InputError, match='top is 0'):
        inference(model, path, top=0)
    with pytest.raises(InputError, match='explain is -2'):
        inference(model, path, explain=-2)


def test_pictures_of_folders(picture_folder, tmp_path):
    (picture_folder / 'images' / 'notes.txt').write_text('no picture')
    (picture_folder / 'images' / 'big.JPG').write_bytes(b'')
    found = find_pictures([str(picture_folder / 'images')])
    assert len(found) == 17 and found == sorted(found)
    empty = tmp_path / 'empty'
    empty.mkdir()
    with pytest.raises(InputError, match="folder '.*empty' has no pictures"):
        find_pictures([str(empty)])
    with pytest.raises(InputError, match="picture 'nowhere.png' does not exist"):
        find_pictures(['nowhere.png'])


@pytest.mark.parametrize('content', [b'', b'no picture', b'\x89PNG\r\n\x1a\nhalf'])
@pytest.mark.parametrize('backend', ['pillow', 'cv2'])
def test_unreadable_picture_is_named(lgr, tmp_path, content, backend):
    (tmp_path / 'bad.png').write_bytes(content)
    options = {'test_dataloader.dataset.pipeline.0.imdecode_backend': backend}
    with pytest.raises(InputError, match=r"The picture '.*bad\.png' cannot be read") as error:
        inference(get_model(*lgr, cfg_options=options), str(tmp_path / 'bad.png'))
    assert 'object at' not in str(error.value)
    assert ('the file is empty' if not content else 'it is damaged, or of a format') in str(error.value)


def test_explanation_needs_anchor_sentences(lgr, tmp_path):
    config, weights = lgr
    model = get_model(*lgr)
    model.head = torch.nn.Identity()
    with pytest.raises(InputError, match='Only a model with LGRHead .* this one has Identity'):
        inference(model, [np.zeros((32, 32, 3), np.uint8)], explain=1)
    with pytest.raises(SystemExit, match='top is 0; it must be at least 1'):
        infer_tool.main(['x.png', '--config', config, '--checkpoint', weights, '--top', '0'])
    with pytest.raises(SystemExit, match='explain is -1; give a number of sentences, or 0'):
        infer_tool.main(['x.png', '--config', config, '--checkpoint', weights, '--explain', '-1'])
    with pytest.raises(SystemExit, match="picture 'x.png' does not exist"):
        infer_tool.main(['x.png', '--config', config, '--checkpoint', weights])


COLOUR = np.random.default_rng(3).integers(0, 256, (32, 32, 3), dtype=np.uint8)
GREY = COLOUR[..., :1]


@pytest.fixture
def linear(tmp_path):
    """A model that takes no colours for others: a linear head on the tiny tower, with weights that are not small."""

    def make(to_rgb=True, pipeline=()):
        model = dict(
            type='ImageClassifier',
            backbone=dict(type='mmlt.OpenCLIPVision', model='mmlt-tiny-vit'),
            head=dict(type='LinearClsHead', num_classes=3, in_channels=64),
            data_preprocessor=dict(type='mmlt.CLIPDataPreprocessor', to_rgb=to_rgb),
        )
        dataset = dict(type='mmlt.LongTailedDataset', ann_file='t.txt', pipeline=[*pipeline, dict(type='PackInputs')])
        (tmp_path / 'linear.py').write_text(f'model = {model!r}\ntest_dataloader = dict(dataset={dataset!r})\n')
        built = MODELS.build(model)
        torch.nn.init.normal_(built.head.fc.weight, std=0.3)
        meta = dict(dataset_meta=dict(classes=CLASSES))
        torch.save(dict(meta=meta, state_dict=built.state_dict()), tmp_path / 'linear.pth')
        return get_model(str(tmp_path / 'linear.py'), str(tmp_path / 'linear.pth'))

    return make


def same(a, b):
    return all(p[0] == q[0] and p[1] == pytest.approx(q[1], abs=1e-6) for p, q in zip(a['top'], b['top'], strict=True))


FILES = dict(type='LoadImageFromFile', imdecode_backend='pillow')
RGB_ARRAYS = [dict(type='NumpyToPIL'), dict(type='PILToNumpy', to_bgr=True)]


@pytest.mark.parametrize('to_rgb, pipeline', [(True, [FILES]), (False, [FILES]), (False, []), (True, RGB_ARRAYS)])
def test_pictures_of_any_form(linear, tmp_path, to_rgb, pipeline):
    """As files, arrays in BGR and Pillow's, to models of files and of arrays: all are their 8-bit RGB twin."""
    model = linear(to_rgb, pipeline)
    Image.fromarray(COLOUR).save(tmp_path / 'colour.png')
    (twin,) = inference(model, tmp_path / 'colour.png')
    seen = torch.from_numpy(COLOUR.transpose(2, 0, 1).copy())[None].float()
    if pipeline == [FILES] and not to_rgb:
        seen = seen.flip(1)  # a model that was trained on BGR
    preprocessor = model.data_preprocessor
    logits = model((seen - preprocessor.mean) / preprocessor.std, mode='tensor').detach()
    assert twin['top'][0] == (CLASSES[int(logits.argmax())], pytest.approx(float(logits.softmax(-1).max()), abs=1e-5))
    bgr, opaque = COLOUR[..., ::-1], np.full_like(GREY, 255)
    clear = Image.fromarray(np.dstack([COLOUR, opaque]))
    forms = [
        *(bgr, bgr / 255, bgr.astype(np.uint16) * 257, np.dstack([bgr, opaque]), np.dstack([bgr, opaque]) / 255),
        *(Image.fromarray(COLOUR), clear, clear.convert('RGBa'), clear.convert('CMYK')),
    ]
    exchanged = inference(model, Image.fromarray(COLOUR[..., ::-1].copy()))[0]
    assert not same(twin, exchanged)
    assert all(same(twin, result) for result in inference(model, forms))
    assert same(twin, inference(model, bgr)[0]) and same(twin, inference(model, iter([bgr]))[0])
    assert [r['image'] for r in inference(model, np.stack([bgr, bgr]))] == [None, None]
    (twin,) = inference(model, Image.fromarray(np.repeat(GREY, 3, -1)))
    deep = GREY.astype(np.uint16) * 256 + 99
    Image.fromarray(deep[..., 0]).save(tmp_path / 'deep.png')
    flat = Image.fromarray(GREY[..., 0])
    forms = [GREY, GREY[..., 0], deep, GREY / 255, np.dstack([GREY, opaque]), Image.fromarray(deep[..., 0]), flat]
    forms += [tmp_path / 'deep.png', Image.fromarray((GREY[..., 0] / 255).astype(np.float32)), flat.convert('LA')]
    assert all(same(twin, result) for result in inference(model, forms))


@pytest.mark.parametrize(
    'images, sentence',
    [
        (COLOUR.astype(np.float32), r'Picture 0 of images cannot be read \(its floating-point .* must be in \[0, 1\]'),
        ([COLOUR, COLOUR.astype(int)], r'Picture 1 of images cannot be read \(its values are int64'),
        (COLOUR.transpose(2, 0, 1), r'not \(3, 32, 32\): put the channels last'),
        (Image.new('I', (32, 32)), '32-bit whole numbers, which do not tell what is white'),
        (torch.zeros(3, 32, 32), 'Picture 0 of images is a Tensor: give the path'),
        ([[1, 2], [3, 4]], 'Picture 0 of images is a list: give the path'),
        (None, 'Picture 0 of images is a NoneType: give the path'),
    ],
)
def test_what_is_no_picture(linear, images, sentence):
    with pytest.raises(InputError, match=sentence):
        inference(linear(), images)


def test_picture_of_pillow_that_is_damaged(linear, tmp_path):
    Image.fromarray(COLOUR).save(tmp_path / 'a.png')
    (tmp_path / 'a.png').write_bytes((tmp_path / 'a.png').read_bytes()[:800])
    with pytest.raises(InputError, match=r'Picture 0 of images cannot be read \(OSError'):
        inference(linear(), Image.open(tmp_path / 'a.png'))


def test_one_list_of_suffixes(tmp_path, monkeypatch):
    said = []
    monkeypatch.setitem(find_pictures.__globals__, 'print_log', lambda message, **_: said.append(message))
    for suffix in (*PICTURE_SUFFIXES, '.heic', '.txt'):
        (tmp_path / f'a{suffix.upper()}').write_bytes(b'')
    assert len(find_pictures([str(tmp_path)])) == len(PICTURE_SUFFIXES) >= 15
    (message,) = said
    assert "1 file is no picture and is left out: '" in message and 'convert them to JPEG' in message


def test_mmpretrains_inferencer_takes_our_configs(linear, tmp_path):
    from mmpretrain import ImageClassificationInferencer

    model = linear(pipeline=[dict(type='mmlt.LoadPicture')])
    Image.fromarray(COLOUR).save(tmp_path / 'colour.png')
    path = str(tmp_path / 'colour.png')
    (theirs,), (ours,) = ImageClassificationInferencer(model)(path), inference(model, path)
    assert ours['top'][0] == (theirs['pred_class'], pytest.approx(theirs['pred_score']))
