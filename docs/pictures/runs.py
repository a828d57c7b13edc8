"""Pictures of runs: generated scenes, and what nano makes of them."""
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
from look import BLUE, GREEN, GREY, INK, ORANGE, RED, SKY, arrow, canvas, rings_patch, show, write
from matplotlib.patches import FancyBboxPatch, Rectangle
from PIL import Image

EXAMPLE, QUESTION = 'simpleseg_mm://example.jpg', 'the orange ring'


@cache
def inferencer():
    from simpleseg_mm.apis import SimpleSegInferencer
    return SimpleSegInferencer()


@cache
def scenes() -> Path:
    """A folder with a small set of RefShapes; it is there until the script ends."""
    from simpleseg_mm.datasets.refshapes import generate
    kept.append(tempfile.TemporaryDirectory())
    generate(kept[-1].name, dict(train=60, val=1, test=60))
    return Path(kept[-1].name)


kept: list = []


def example() -> np.ndarray:
    from simpleseg_mm.files.packaged import packaged
    return np.array(Image.open(packaged('example.jpg')).convert('RGB'))


def rgb(color: str) -> np.ndarray:
    """(3,) uint8 of #rrggbb."""
    return np.frombuffer(bytes.fromhex(color[1:]), np.uint8)


def outline(ax, rings, scale, at, color=BLUE, width=2.2, dots=4.5, **options) -> None:
    """Rings with their vertices on a picture."""
    ax.add_patch(rings_patch(rings, scale, at, edgecolor=color, linewidth=width, zorder=3,
                             **{'facecolor': 'none', **options}))
    if dots:
        points = np.concatenate(rings) * scale + at
        ax.plot(*points.T, 'o', color=color, markersize=dots, zorder=4, markeredgecolor='white',
                markeredgewidth=.7)


def inference():
    from simpleseg_mm.files.packaged import packaged
    result, = inferencer().segment(str(packaged('example.jpg')), QUESTION)
    rings = [ring for part in result.parts for ring in (part.outer, *part.holes)]
    image = example()
    figure, ax = canvas(404)
    side = 176
    scale = side / image.shape[1]
    for k, (title, shown) in enumerate((('picture', image), ('outline', image),
                                        ('mask', np.where(result.mask[..., None], 40, 228).astype(
                                            np.uint8).repeat(3, 2)))):
        at = (12 + 200 * k, 36)
        write(ax, at[0] + side / 2, 18, title, align='center', weight='bold')
        show(ax, shown, (*at, side, side))
        if title == 'outline':
            outline(ax, rings, scale, at)
    for k in (0, 1):
        arrow(ax, (190 + 200 * k, 124), (210 + 200 * k, 124), INK)
    write(ax, 12, 238, f'simpleseg segment example.jpg "{QUESTION}"', family='DejaVu Sans Mono',
          color=BLUE, size=11.2)
    pieces = result.text.replace('],[', '],|[').split('|')
    lines = ['']
    for piece in pieces:
        if len(lines[-1]) + len(piece) > 56:
            lines.append('')
        lines[-1] += piece
    for k, line in enumerate(lines):
        write(ax, 12, 268 + 24 * k, line, family='DejaVu Sans Mono', size=11.2)
    y = 268 + 24 * len(lines) + 8
    write(ax, 12, y, f'{result.num_tokens} tokens, confidence {100 * result.confidence:.0f} %',
          color=GREY)
    write(ax, 12, y + 26, 'to JSON, SVG, GeoJSON, COCO, CVAT, LabelMe, YOLO', color=GREY)
    return figure, ('The packaged example is asked for the orange ring; nano writes its outline '
                    'as text, which is decoded to a mask and written as files of other tools.')


def decoding():
    """An answer pass by pass, as the decoder tells it."""
    import torch

    from simpleseg_mm.polygon import AnswerAutomaton
    model = inferencer().model
    spell = model.mllm.encoder.tokenizer.decode
    passes = []
    answer, = model.answer(
        [torch.from_numpy(example()).permute(2, 0, 1)], [f'Output the polygon of {QUESTION}.'],
        [AnswerAutomaton.of('int100', 'rings')],
        on_tokens=lambda row, ids: passes.append([spell([one]) for one in ids]) and None)
    figure, ax = canvas(338)
    x, y, letter = 14, 66, 10.4
    count = sum(map(len, passes))
    write(ax, 14, 22, f'{count} tokens in {len(passes)} passes of the network', weight='bold')
    for tokens in passes:
        tokens = ['end' if one == '<|im_end|>' else one for one in tokens]
        widths = [letter * len(one) + 7 for one in tokens]
        if x + sum(widths) > 590:
            x, y = 14, y + 40
        for k, (text, width) in enumerate(zip(tokens, widths)):
            drafted = k < len(tokens) - 1
            ax.add_patch(Rectangle((x, y - 15), width, 30, facecolor=GREEN if drafted else
                                   '#cfe3f2', edgecolor='none', zorder=2))
            write(ax, x + width / 2, y, text, align='center', family='DejaVu Sans Mono',
                  color='white' if drafted else INK, zorder=3)
            x += width
        ax.add_patch(FancyBboxPatch((x - sum(widths), y - 15), sum(widths), 30, facecolor='none',
                                    boxstyle='round,pad=0,rounding_size=3', edgecolor=INK,
                                    linewidth=1.2, zorder=4))
        x += 6
    for k, (color, text) in enumerate([(GREEN, 'drafted by the grammar, accepted'),
                                       ('#cfe3f2', 'chosen by the network after it')]):
        ax.add_patch(Rectangle((14, y + 34 + 30 * k), 22, 22, facecolor=color))
        write(ax, 46, y + 45 + 30 * k, text)
    ax.set_ylim(y + 104, 0)
    figure.set_size_inches(figure.get_figwidth(), (y + 104) / 96)
    return figure, (f'The answer of nano about the orange ring, pass by pass: {count} tokens are '
                    f'written in {len(passes)} passes, because brackets and commas are drafted by '
                    'the grammar and checked in the pass that chooses the next number.')


def acceleration_packing():
    """A batch of nano's recipe as the network reads it: padded, and packed."""
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    from simpleseg_mm.registry import DATASETS
    init_default_scope('simpleseg_mm')
    config = Config.fromfile('configs/simpleseg/nano_sft_refshapes.py')
    dataset = DATASETS.build(dict(config.train_dataloader.dataset, data_root=str(scenes())))
    samples = [dataset[k] for k in range(0, 8 * 9, 9)]
    mllm = inferencer().model.mllm
    batch = mllm.encoder.encode([one['inputs'] for one in samples],
                                [one['data_samples'].turns for one in samples])
    ids, labels, real = (batch[name].numpy() for name in ('input_ids', 'labels', 'attention_mask'))
    colors = {name: rgb(color) for name, color in (
        ('picture', SKY), ('prompt', '#b6bdc8'), ('answer', GREEN), ('padding', '#ffffff'))}
    cells = np.empty((*ids.shape, 3), np.uint8)
    cells[:] = colors['prompt']
    cells[ids == mllm.family.image_token_id] = colors['picture']
    cells[labels != -100] = colors['answer']
    cells[real == 0] = colors['padding']
    rows, length = ids.shape
    width, height = 576 / length, 13
    figure, ax = canvas(470)
    write(ax, 12, 20, f'Padded: {rows} rows, {100 * (1 - real.mean()):.0f} % of the tokens are '
          'padding', weight='bold')
    for k in range(rows):
        at = 40 + (height + 3) * k
        show(ax, cells[k:k + 1], (12, at, 576, height))
        ax.add_patch(Rectangle((12, at), 576, height, facecolor='none', edgecolor='#c4cad3',
                               linewidth=.8, zorder=2))
    y = 40 + (height + 3) * rows + 24
    write(ax, 12, y, 'Packed: one row, read line by line', weight='bold')
    packed, ends = cells[real > 0], np.cumsum(real.sum(1))
    for k in range(0, len(packed), length):
        at, line = y + 18 + (height + 3) * (k // length), packed[None, k:k + length]
        show(ax, line, (12, at, width * line.shape[1], height))
        for end in ends[(ends > k) & (ends < k + length)]:
            ax.plot([12 + width * (end - k)] * 2, [at - 1, at + height + 1], color=RED,
                    linewidth=2.4, zorder=3)
    y += 18 + (height + 3) * -(-len(packed) // length) + 24
    for x, below, color, text in [(12, 0, SKY, 'picture'), (206, 0, '#b6bdc8', 'prompt'),
                                  (12, 30, GREEN, 'answer: the loss is taken here alone'),
                                  (12, 60, RED, 'cu_seqlens: rows cannot read each other')]:
        ax.add_patch(Rectangle((x, y + below - 10), 20, 20, facecolor=color))
        write(ax, x + 30, y + below, text)
    ax.set_ylim(y + 84, 0)
    figure.set_size_inches(figure.get_figwidth(), (y + 84) / 96)
    return figure, (f'Eight samples of nano: padded, {100 * (1 - real.mean()):.0f} % of the '
                    'tokens are padding; packed, they lie end to end in one row without any. The '
                    'loss is taken on the tokens of the answers alone.')


def data():
    """Samples of five tasks, as the transform writes them."""
    from mmengine.registry import init_default_scope

    from simpleseg_mm.polygon import PolygonCodec, parse_answer
    from simpleseg_mm.registry import DATASETS
    init_default_scope('simpleseg_mm')
    figure, ax = canvas(5 * 132 + 4)
    codec = dict(grammar='int1000', tokens=40)
    grammar = PolygonCodec(**codec).grammar
    for k, task in enumerate(('text2mask', 'point2mask', 'box2mask', 'text2box',
                              'image2objects')):
        dataset = DATASETS.build(dict(
            type='RefShapesDataset', data_root=str(scenes()), split='train', test_mode=True,
            targets='picture' if task == 'image2objects' else 'references',
            query=dict(type='FormatQuery', codec=codec, tasks={task: 1.0})))
        sample = dataset[9 if task == 'image2objects' else 30]
        (prompt, text), = sample['data_samples'].turns
        image = sample['inputs'].numpy().transpose(1, 2, 0)
        at, side = np.array((12., 10. + 132 * k)), 116
        show(ax, image, (*at, side, side))
        answer = PolygonCodec(**codec).decode(text, image.shape[:2], dict(
            text2box='box', image2objects='objects').get(task, 'rings'))
        size = side / image.shape[1]
        for one in answer.instances or [answer]:
            if one.rings:
                outline(ax, one.rings, size, at, RED, 1.8, 3)
        for shown, color in ((parse_answer(prompt, grammar), BLUE), (answer.parsed, RED)):
            if shown.box is not None:
                corner, end = np.reshape(shown.box, (2, 2)) * side + at
                ax.add_patch(Rectangle(corner, *(end - corner), facecolor='none', edgecolor=color,
                                       linewidth=2.2, zorder=4))
            if shown.point is not None and color == BLUE:
                ax.plot(*(shown.point * side + at), 'o', color=BLUE, markersize=8, zorder=5,
                        markeredgecolor='white')
        write(ax, 142, at[1] + 12, task, weight='bold')
        lines = wrapped(prompt, 46)
        for j, line in enumerate(lines):
            write(ax, 142, at[1] + 36 + 22 * j, line, color=BLUE)
        text = text if len(text) <= 43 else f'{text[:42]}…'
        write(ax, 142, at[1] + 38 + 22 * len(lines), text, family='DejaVu Sans Mono', size=11,
              color=RED)
    return figure, ('Five samples of generated scenes, with prompt and answer: an outline from a '
                    'text, from a point and from a box, a box from a text, and all objects of a '
                    'picture with their names.')


def wrapped(text: str, columns: int) -> list[str]:
    import textwrap
    return textwrap.wrap(text, columns)


def data_engine():
    """One scene through the stages that need no model; annotations take the detector's place."""
    import json
    import tarfile

    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    from simpleseg_mm.annotation.stages import LocalEngine, annotate
    from simpleseg_mm.polygon import PolygonCodec, rle_to_mask
    init_default_scope('simpleseg_mm')
    config = Config.fromfile('configs/annotation/refshapes_oracle.py')
    folder = scenes()
    config.merge_from_dict({
        'reader.root': str(folder / 'images'),
        'stages.detect.ann_file': str(folder / 'refshapes/instances.json'),
        'stages.segment.ann_file': str(folder / 'refshapes/instances.json'),
        'order': [*config.order, 'polygon']})
    annotate(config, str(folder / 'engine'), LocalEngine(0))
    with tarfile.open(next((folder / 'engine/shards').glob('*.tar'))) as shard:
        names = [one for one in shard.getnames() if one.endswith('.json')]
        samples = [json.load(shard.extractfile(name)) for name in names]
        sample = next(one for one in samples if len(one['objects']) == 4)
        image = np.array(Image.open(shard.extractfile(f'{sample["key"]}.jpg')))
    size, side = (sample['height'], sample['width']), 270
    scale = side / size[1]
    figure, ax = canvas(2 * 334 + 74)
    codec = PolygonCodec(**config.stages.polygon.codec)
    for k, (title, below) in enumerate([
            ('1 read, filter', 'it decodes to its end'),
            ('2 detect, select', 'a box and a category each'),
            ('3 segment, clean', 'a mask each, tight to its box'),
            ('4 outline', 'as text, and how well it fits')]):
        at = np.array((12. + 306 * (k % 2), 34. + 334 * (k // 2)))
        write(ax, at[0], at[1] - 16, title, weight='bold')
        write(ax, at[0], at[1] + side + 16, below, color=GREY)
        picture = image.copy()
        if k == 2:
            for one in sample['objects']:
                mask = rle_to_mask(one['segmentation'])
                picture[mask] = rgb(BLUE)
        show(ax, picture, (*at, side, side))
        for one in sample['objects']:
            x, y, w, h = np.array(one['bbox']) * scale
            if k == 1:
                ax.add_patch(Rectangle((x + at[0], y + at[1]), w, h, facecolor='none',
                                       edgecolor=INK, linewidth=2, zorder=3))
                write(ax, *at + (min(x, side - 84) + 2, y - 10 if y > 20 else y + h + 10),
                      one['category'], zorder=4, weight='bold')
            if k == 3:
                outline(ax, codec.decode(one['polygon'], size).rings, scale, at, INK, 2, 4)
                write(ax, *at + (x + w / 2, y + h / 2), f'{100 * one["polygon_iou"]:.0f} %',
                      align='center', zorder=5, weight='bold', bbox=dict(
                          facecolor='white', edgecolor='none', alpha=.85, pad=1.5))
    write(ax, 12, 704, '5 describe, verify: a VLM writes phrases, the detector', weight='bold')
    write(ax, 12, 726, 'must find each again. Not in this run: they need models.', color=GREY)
    return figure, ('One generated scene in the data engine: it is read and filtered; each object '
                    'gets a box and a category, then a mask, then an outline as text with the IoU '
                    'that is left. Annotations take the place of the models here.')


def what_is_read():
    """A COCO file with a crowd and with a box alone, as own_data.py reads it."""
    import json
    import subprocess
    import sys
    from collections import Counter

    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    from simpleseg_mm.polygon import mask_to_rings, rle_to_mask
    from simpleseg_mm.registry import DATASETS
    folder, out = scenes(), scenes() / 'mine'
    content = json.loads((folder / 'refshapes/instances.json').read_text())
    names = {one['id']: one['name'] for one in content['categories']}
    objects = {one['id']: [row for row in content['annotations'] if row['image_id'] == one['id']]
               for one in content['images']}

    def kinds(image):
        return Counter(row['category_id'] for row in objects[image['id']])

    image = next(one for one in content['images']
                 if sorted(kinds(one).values()) == [1, 1, 2])  # two objects have one category
    twice, = (key for key, count in kinds(image).items() if count == 2)
    sibling, lost = (row for row in objects[image['id']] if row['category_id'] == twice)
    used, crowd = (row for row in objects[image['id']] if row['category_id'] != twice)
    rings = {row['id']: mask_to_rings(rle_to_mask(row['segmentation']), 'edges')
             for row in objects[image['id']]}
    crowd['iscrowd'], lost['segmentation'] = 1, []
    others = [one for one in content['images'] if one is not image][:5]
    ids = {one['id'] for one in (image, *others)}
    content.update(images=[image, *others], annotations=[
        row for row in content['annotations'] if row['image_id'] in ids])
    (folder / 'mine.json').write_text(json.dumps(content))
    subprocess.run([sys.executable, 'tools/dataset_converters/own_data.py', folder / 'mine.json',
                    out, '--images', folder / 'images', '--val', '0.2'], check=True,
                   capture_output=True)
    init_default_scope('simpleseg_mm')
    config = Config.fromfile(out / 'nano_mine.py')
    asked = set()
    for loader in (config.train_dataloader, config.val_dataloader):
        dataset = DATASETS.build(loader.dataset)
        asked |= {row['text'] for row in map(dataset.get_data_info, range(len(dataset)))
                  if Path(row['img_path']).name == image['file_name']}
    figure, ax = canvas(330)
    side = 292
    scale, at = side / image['width'], np.array((12., 24.))
    show(ax, np.array(Image.open(folder / 'images' / image['file_name'])), (*at, side, side))
    rows = []
    for row, color, words in [
            (used, GREEN, 'an outline: asked'), (crowd, BLUE, 'a crowd: asked as a group'),
            (lost, RED, 'a box alone: lost'), (sibling, INK, 'the same category')]:
        x, y, width, height = np.array(row['bbox']) * scale
        if row is lost:
            ax.add_patch(Rectangle((x, y) + at, width, height, facecolor='none', edgecolor=color,
                                   linewidth=3, zorder=4))
        else:
            outline(ax, rings[row['id']], scale, at, color, 3, 0,
                    linestyle='--' if row is crowd else '-')
        rows.append((names[row['category_id']], words, color))
    for k, (name, words, color) in enumerate(rows):
        y = 40 + 62 * k
        ax.add_patch(Rectangle((320, y - 12), 12, 46, facecolor=color))
        write(ax, 342, y, name, weight='bold')
        write(ax, 342, y + 22, words, color=GREY)
    lost_name = names[twice]
    assert asked == {names[used['category_id']], names[crowd['category_id']]}, asked
    write(ax, 320, 288, f'Not asked here: {lost_name}.', weight='bold')
    write(ax, 320, 310, 'One of its objects is lost.', color=GREY)
    return figure, (f'Of four objects of a COCO file one is a crowd and one has a box alone: the '
                    f'crowd is asked as a group, and no question asks for a {lost_name}, because '
                    'one of two is lost.')


@cache
def answers():
    """nano's answers to a sentence of each reference of the test scenes: image, truth, answer."""
    from mmengine.registry import init_default_scope

    from simpleseg_mm.registry import DATASETS
    init_default_scope('simpleseg_mm')
    dataset = DATASETS.build(dict(
        type='RefShapesDataset', data_root=str(scenes()), split='test', test_mode=True,
        query=dict(type='FormatQuery', codec=dict(grammar='int100', tokens=40),
                   tasks=dict(text2mask=1.0))))
    samples = [dataset[k] for k in range(0, len(dataset), 3)]
    images = [one['inputs'].numpy().transpose(1, 2, 0) for one in samples]
    texts = [one['data_samples'].text for one in samples]
    results = inferencer().segment(images, [[text] for text in texts], batch_size=16)
    return [(image, one['data_samples'].gt_masks.masks[0] > 0, result)
            for image, one, result in zip(images, samples, results)]


def evaluation():
    import cv2

    from simpleseg_mm.polygon import mask_iou
    from simpleseg_mm.polygon.metrics import boundary_iou
    found = answers()
    ious = np.array([100 * mask_iou(result.mask, truth) for _, truth, result in found])
    best = int(np.argmin(abs(ious - 80)))
    image, truth, result = found[best]
    mask = result.mask
    figure, ax = canvas(560)
    side = 270
    rows, columns = np.nonzero(truth | mask)
    span = int(1.25 * max(np.ptp(rows), np.ptp(columns)))
    top, left = (int(np.clip(values.mean() - span / 2, 0, 224 - span))
                 for values in (rows, columns))
    window = np.s_[top:top + span, left:left + span]
    kernel = np.ones((13, 13), np.uint8)  # 6 pixels: 2 % of the diagonal of 224 x 224
    bands = [one & ~cv2.erode(one.astype(np.uint8), kernel).astype(bool) for one in (truth, mask)]
    colors = [rgb(color) for color in ('#9aa3b0', SKY, ORANGE)]
    for k, (title, (a, b)) in enumerate([
            (f'IoU {ious[best]:.1f} %', (truth, mask)),
            (f'boundary IoU {100 * boundary_iou(truth, mask):.1f} %', bands)]):
        picture = np.full((224, 224, 3), 255, np.uint8)
        for where, color in ((a & b, colors[0]), (a & ~b, colors[1]), (b & ~a, colors[2])):
            picture[where] = color
        at = (12 + 306 * k, 34)
        write(ax, at[0], 18, title, weight='bold')
        show(ax, picture[window].repeat(4, 0).repeat(4, 1), (*at, side, side))
        ax.add_patch(Rectangle(at, side, side, facecolor='none', edgecolor='#c4cad3', zorder=2))
    for x, color, text in ((12, '#9aa3b0', 'in both'), (150, SKY, 'missed'),
                           (288, ORANGE, 'too much')):
        ax.add_patch(Rectangle((x, 316), 20, 20, facecolor=color))
        write(ax, x + 30, 326, text)
    plot = figure.add_axes((.135, .105, .815, .27))
    ordered = np.sort(ious)[::-1]
    share = 100 * (np.arange(len(ordered)) + 1) / len(ordered)
    plot.plot(share, ordered, color=BLUE)
    hit = 100 * np.mean(ious >= 50)
    plot.plot([0, hit, hit], [50, 50, 0], color=RED, linestyle='--')
    plot.axhline(ious.mean(), color=GREEN, linestyle=':')
    plot.annotate(f'P@0.5 = {hit:.0f}', (hit - 2, 12), ha='right', color=RED, fontweight='bold')
    plot.annotate(f'gIoU = {ious.mean():.1f}', (2, ious.mean() - 12), color=GREEN,
                  fontweight='bold')
    plot.set(xlim=(0, 100), ylim=(0, 100), xlabel=f'share of {len(ious)} queries, %', ylabel='IoU')
    return figure, ('The IoU of one answer of nano and the IoU of the bands along both outlines, '
                    f'and the IoU of {len(ious)} answers in order: their mean is gIoU, and P@0.5 '
                    'is the share from 50 % on.')


def reinforcement_learning():
    """A group of nano's answers, drawn and rewarded as its recipe says."""
    import torch
    from mmengine.config import Config

    from simpleseg_mm.models.sampling import Sampling
    from simpleseg_mm.polygon import AnswerAutomaton, PolygonCodec
    from simpleseg_mm.rl import PolygonReward
    from simpleseg_mm.rl.objective import group_advantages
    settings = Config.fromfile('configs/simpleseg/nano_gspo_refshapes.py').train_cfg
    image, truth, result = next(row for row in answers() if 1500 < row[1].sum() < 3000
                                and row[2].parts and not row[2].parts[0].holes)
    text, size = result.prompt.text, 8
    sampled, = inferencer().model.sample(
        [torch.from_numpy(image.copy()).permute(2, 0, 1)], [f'Output the polygon of {text}.'],
        size, [(0, k) for k in range(size)],
        Sampling(settings.rollout.max_new_tokens, settings.rollout.temperature),
        [AnswerAutomaton.of('int100', 'rings')])
    texts = [one.text for one in sampled]
    rewards = np.array(PolygonReward(dict(settings.reward.weights), 'int100/default')(
        texts, [truth] * size).total)
    advantages, _ = group_advantages(torch.from_numpy(rewards)[None])
    figure, ax = canvas(2 * 206 + 64)
    codec, side = PolygonCodec(grammar='int100'), 136
    write(ax, 12, 20, f'“{text}”, {size} sampled answers', weight='bold')
    for k, place in enumerate(np.argsort(-rewards)):
        at = np.array((12. + 147 * (k % 4), 44. + 206 * (k // 4)))
        show(ax, image, (*at, side, side))
        rings = codec.decode(texts[place], image.shape[:2]).rings
        advantage = float(advantages[0, place])
        color = BLUE if advantage > 0 else RED
        if rings:
            outline(ax, rings, side / image.shape[1], at, INK, 2, 3)
        write(ax, at[0] + side / 2, at[1] + side + 16, f'reward {rewards[place]:.2f}',
              align='center')
        write(ax, at[0] + side / 2, at[1] + side + 40, f'{advantage:+.2f}', align='center',
              color=color, weight='bold')
    write(ax, 12, 456, 'Bold: the advantage, (reward - mean) / deviation of the group',
          color=GREY)
    return figure, (f'Nano draws {size} answers to one prompt, which get rewards from '
                    f'{rewards.max():.2f} to {rewards.min():.2f}; an answer that is better than '
                    'the mean of its group has a positive advantage.')


PICTURES = dict(inference=inference, decoding=decoding, data=data, data_engine=data_engine,
                evaluation=evaluation, what_is_read=what_is_read,
                acceleration_packing=acceleration_packing,
                reinforcement_learning=reinforcement_learning)
