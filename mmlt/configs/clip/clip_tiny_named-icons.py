# Pretrains the tiny CLIP on icons with captions, and validates it zero-shot on emoji.
# It plays the part of a web-pretrained CLIP: it knows many things by name, and has seen no emoji.
_base_ = './clip_tiny_printed-characters.py'

model = dict(templates='a picture of the {}', data_preprocessor=dict(mean=[180] * 3, std=[80] * 3))

# Trained on kinds and names of icons, validated on the kinds of emoji.
train_dataloader = dict(
    dataset=dict(type='mmlt.NamedIcons', pipeline=[dict(type='PackInputs', algorithm_keys=('caption',))])
)
val_dataloader = dict(dataset=dict(type='mmlt.TwemojiLT', split='val', pipeline=[dict(type='PackInputs')]))
test_dataloader = dict(dataset=dict(type='mmlt.TwemojiLT', split='test', pipeline=[dict(type='PackInputs')]))
