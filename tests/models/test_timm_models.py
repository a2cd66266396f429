"""All Vision Transformers of timm that a TimmViT can be, patches of other forms, and whole models."""

import pytest
import timm
import torch

from mmlt import InputError
from mmlt.models import CosineClsHead, TimmViT
from mmlt.models.compositions import check_composition
from tests.models.test_timm_vit import ADAPTER, DINO, DINO3, REG, TINY, images, stirred


def test_patches_that_are_no_squares_and_images_that_timm_pads():
    for options, size, wrong in (
        (dict(patch_size=(4, 8)), (12, 16), (12, 20)),
        (dict(dynamic_img_pad=True), (30, 41), 0),
    ):
        options = {**TINY, **options}
        tower = stirred(TimmViT(REG, image_size=56, dynamic=True, pooling='avg', options=options)).eval()
        own = timm.create_model(REG, num_classes=0, img_size=56, dynamic_img_size=True, **options).eval()
        own.load_state_dict(tower.visual.state_dict())
        x = torch.randn(2, 3, *size)
        expected = own.forward_features(x)[:, 5:]
        assert len(expected[0]) == (6 if wrong else 9)
        assert (tower(x)[0] - expected.mean(1)).abs().max() <= 1e-6
        if wrong:
            with pytest.raises(
                InputError, match='patches of 4 x 8 pixels .* in place of 20 choose a multiple such as 16'
            ):
                tower(torch.randn(1, 3, *wrong))


@pytest.mark.parametrize(
    ('model', 'with_texts'),
    [
        ('vit_pe_core_tiny_patch16_384', True),
        ('vit_base_patch14_reg1_tipsv2', True),
        ('vit_base_patch16_siglip_224', True),
        ('eva02_base_patch16_clip_224', True),
        ('vit_pe_spatial_tiny_patch16_512', False),
        (DINO3, False),
    ],
)
def test_which_towers_were_trained_with_texts(model, with_texts):
    """By their names: only these may have a head that starts from texts."""
    tower = TimmViT(model, image_size=56 if 'patch14' in model else 64, options=TINY)
    classifier = torch.nn.Module()
    classifier.backbone, classifier.head = tower, CosineClsHead(3, 48, text=dict(type='any'))
    if with_texts:
        check_composition(classifier)
        return
    with pytest.raises(InputError, match=f"'{model}' was never trained with texts: set model.head.init='class_means'"):
        check_composition(classifier)


def test_every_plain_vit_of_timm():
    """Of one block, 32 wide: timm's values, patches without prefix tokens, adapters where blocks have a place."""
    without, seen = [], 0
    for model in sorted(m for module in ('vision_transformer', 'deit', 'eva') for m in timm.list_models(module=module)):
        options = dict(depth=1, embed_dim=32, num_heads=2)
        for size in (56, 64, 72):
            try:
                tower = TimmViT(model, image_size=size, options=options)
                break
            except InputError as e:
                refusal = str(e)
        else:
            assert 'sapiens2' in model or 'mci' in model, refusal  # which are not 32 wide, or of one block
            continue
        stirred(tower.visual)
        tower.eval()
        seen += 1
        own = timm.create_model(model, num_classes=0, img_size=size, **options).eval()
        own.load_state_dict(tower.visual.state_dict())
        x = images(size)
        with torch.no_grad():
            expected, tokens = own(x), own.forward_features(x)
            rounding = 1e-6 * tokens.abs().max().clamp(min=1)
            assert (tower(x)[0] - expected).abs().max() <= rounding, model
            tower.pooling = 'avg'
            patches = tokens[:, -own.patch_embed.num_patches :]
            assert (tower(x)[0] - own.fc_norm(patches.mean(1))).abs().max() <= 4 * rounding, model
            try:
                adapted = TimmViT(model, image_size=size, options=options, adapter=ADAPTER).eval()
            except InputError:
                without.append(model)
                continue
            adapted.visual.load_state_dict(own.state_dict())
            assert (adapted(x)[0] - expected).abs().max() <= rounding, model
            stirred(adapted.adapters)
            assert (adapted(x)[0] - expected).abs().max() > 1e-4, model
    assert seen > 100 and len(without) < 12 and not any('dino' in model for model in without)


@pytest.mark.slow
@pytest.mark.parametrize('model', [m.replace('small', 'base') for m in (DINO, REG, DINO3)])
def test_whole_model_at_224(model):
    adapter = dict(type='mmlt.AdaptFormer', num_classes=1000)
    tower, x = TimmViT(model, image_size=224, adapter=adapter).eval(), images(224, 1)
    own = timm.create_model(model, num_classes=0, img_size=224).eval()
    own.load_state_dict(tower.visual.state_dict())
    trained = sum(p.numel() for p in tower.parameters() if p.requires_grad)
    assert trained == sum(p.numel() for p in tower.adapters.parameters()) == 617_868  # of 32 in 12 blocks, 768 wide
    with torch.no_grad():
        assert (tower(x)[0] - own(x)).abs().max() <= 1e-6
