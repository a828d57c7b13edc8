"""Pictures of masks and their outlines. They need the polygon core alone."""
import numpy as np
from look import BLUE, GREY, INK, RED, canvas, rings_patch, write
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont

from simpleseg_mm.polygon import PolygonCodec, count_tokens, mask_iou


def knight(side: int = 320) -> np.ndarray:
    """A mask (side, side) bool with fine parts and holes: the knight of matplotlib's font."""
    image = Image.new('L', (side, side))
    font = ImageFont.truetype(findfont('DejaVu Sans'), round(side * 1.22))
    ImageDraw.Draw(image).text((side / 2, side / 2), '\u265e', 255, font, anchor='mm')
    return np.asarray(image) > 127


def polygon():
    mask = knight()
    side, width = len(mask), 190
    ways = [(f'budget {tokens}', dict(tokens=tokens)) for tokens in (30, 60, 150, 250)]
    ways += [('every vertex', dict(tokens=None)), ("paper's preset", dict(
        preset='paper', grammar='decimal3', epsilon=0.005))]
    figure, ax = canvas(2 * (width + 62) + 8)
    scale = width / side
    for k, (title, options) in enumerate(ways):
        codec = PolygonCodec(**options)
        text = codec.encode(mask)
        answer = codec.decode(text, mask.shape)
        at = (8 + 197 * (k % 3), 54 + (width + 62) * (k // 3))
        write(ax, at[0] + width / 2, at[1] - 38, title, align='center', weight='bold')
        write(ax, at[0] + width / 2, at[1] - 16, align='center', color=GREY, text=(
            f'{count_tokens(text):,} tokens, {100 * mask_iou(answer.mask, mask):.1f} %'))
        ax.imshow(np.where(mask, 215, 255).astype(np.uint8), cmap='gray', vmin=0, vmax=255,
                  extent=(at[0], at[0] + width, at[1] + width, at[1]), interpolation='none')
        ax.add_patch(rings_patch(answer.rings, scale, at, facecolor='none', edgecolor=BLUE,
                                 linewidth=1.4, zorder=3))
        if count_tokens(text) < 600:
            points = np.concatenate(answer.rings) * scale + at
            ax.plot(*points.T, 'o', color=RED, markersize=2.6, zorder=4)
    ax.set(xlim=(0, 600), ylim=(2 * (width + 62) + 8, 0), aspect='auto')
    return figure, ('One silhouette written at budgets of 30, 60, 150 and 250 tokens, with every '
                    "vertex, and by the paper's preset, each with its tokens and the IoU that is "
                    'left.')


def find(*shapes: str) -> dict[str, np.ndarray]:
    """Masks (224, 224) of large shapes that stand in one generated scene, by name."""
    from simpleseg_mm.datasets.refshapes import make_scene, shape_of  # loads MMEngine
    for index in range(1000):
        scene = make_scene(0, 'train', index, objects_range=(2, 2))
        large = {one.shape: one.mask for one in map(shape_of, scene['annotations'])
                 if one.size == 'large'}
        if set(shapes) <= large.keys():
            return {name: large[name] for name in shapes}
    raise LookupError(f'no scene with {shapes}')


def polygon_holes():
    mask = find('ring')['ring']
    default, paper = PolygonCodec(tokens=60), PolygonCodec(preset='paper', epsilon=0.005)
    outer, hole = default.decode(default.encode(mask), mask.shape).rings
    start, end = np.unravel_index(np.argmin(np.linalg.norm(outer[:, None] - hole, axis=2)),
                                  (len(outer), len(hole)))
    turned = np.roll(outer, -start, 0), np.roll(hole, -end, 0)
    cut = np.concatenate([ring[[*range(len(ring)), 0]] for ring in turned])
    lost = paper.decode(paper.encode(mask), mask.shape).rings
    low, high = outer.min(0), outer.max(0)
    scale = 176 / (high - low).max()
    figure, ax = canvas(258)
    for k, (title, line, rings) in enumerate([
            ('default', 'a ring the other way', [outer, hole]),
            ('other tools', 'one ring, cut open', [cut]),
            ("paper's preset", 'the hole is lost', lost)]):
        at = (12 + 200 * k, 68) - low * scale
        write(ax, 100 + 200 * k, 18, title, align='center', weight='bold')
        write(ax, 100 + 200 * k, 42, line, align='center', color=GREY)
        ax.add_patch(rings_patch(rings, scale, at, facecolor='#cfe3f2', edgecolor=BLUE,
                                 linewidth=1.6, zorder=2))
        for ring in rings:
            _directions(ax, ring * scale + at)
    return figure, ('A ring as the default preset writes it, with a hole that runs the other way; '
                    'as one ring that is cut open to the hole, as other tools need it; and by the '
                    "paper's preset, which fills the hole.")


def _directions(ax, points: np.ndarray) -> None:
    """Arrow heads along a ring, one an edge that has room for it."""
    for start, end in zip(points, np.roll(points, -1, 0)):
        if (length := np.linalg.norm(end - start)) > 22:
            middle = (start + end) / 2
            ax.annotate('', middle + (end - start) / length * 6, middle, zorder=4, arrowprops=dict(
                arrowstyle='-|>', color=RED, linewidth=1, shrinkA=0, shrinkB=0, mutation_scale=13))


def glossary():
    masks = find('ring', 'split disc')
    codec, scale, at = PolygonCodec(tokens=90), 2.0, np.array((-8., -104.))
    figure, ax = canvas(330)
    drawn = {}
    for (name, mask), color in zip(masks.items(), ('#cfe3f2', '#fbe3d0')):
        rings = drawn[name] = [ring * scale + at for ring in codec.decode(
            codec.encode(mask), mask.shape).rings]
        ax.add_patch(rings_patch(rings, facecolor=color, edgecolor=BLUE, linewidth=1.8, zorder=2))
        for ring in rings:
            ax.plot(*ring.T, 'o', color=RED, markersize=4, zorder=4)
    (outer, hole), halves = drawn['ring'], drawn['split disc']
    _directions(ax, outer)
    _directions(ax, hole)
    labels = [(26, 'vertex', 'two numbers, x and y', outer[-1]),
              (84, 'ring', 'a closed list of vertices', (outer[-3] + outer[-4]) / 2),
              (142, 'hole', 'its ring runs the other way', hole[2]),
              (200, 'mask', 'the pixels inside', outer.mean(0) + (60, 48)),
              (258, 'part', 'this object has two', halves[1].mean(0) + (6, 14))]
    for y, word, meaning, target in labels:
        write(ax, 372, y, word, weight='bold')
        write(ax, 372, y + 22, meaning, color=GREY)
        ax.plot([366, target[0]], [y + 2, target[1]], color=INK, linewidth=1, zorder=5)
        ax.plot(*target, 'o', color=INK, markersize=3.5, zorder=5)
    return figure, ('Two objects as polygons: a ring, whose outer ring and hole run in opposite '
                    'directions, and a disc in two parts; a vertex, a ring, a hole, the '
                    'mask and a part are named.')


PICTURES = dict(polygon=polygon, polygon_holes=polygon_holes, glossary=glossary)
