"""A scripted annotator: how much work is left before and after a round of training.

    python benchmarks/annotator.py work_dirs/annotator --seeds 3 --plot annotator.png

RefShapes on a dark ground, which the packaged model has not seen (``GROUND``). For each seed:
50 pictures are annotated with the packaged model, what was corrected is written as `corrections`,
``tools/dataset_converters/own_data.py`` makes a training set of it and ``tools/train.py`` trains
by the config that it writes. Then 200 new pictures are annotated with either model (a quarter of
them also until IoU 0.8 and 0.95).

The annotator knows the truth. It asks for each object by an expression; where the outline is
mostly of something else it clicks on the object. Then it corrects until the IoU with the truth is
0.9: of all that one can do with one vertex, always what gains most; or it deletes the answer and
draws, where that is less work. It keeps documents in the page's form, and counts as the page does.

Everything is kept in the folder: the same command goes on where it was. The last line is one JSON
object.
"""
import argparse
import functools
import json
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from simpleseg_mm.apis import SimpleSegInferencer
from simpleseg_mm.datasets.refshapes import make_scene
from simpleseg_mm.export import CORRECTIONS_FILE, to_corrections
from simpleseg_mm.files import replace_json
from simpleseg_mm.polygon import (PolygonCodec, group_rings, mask_iou, mask_to_point,
                                  mask_to_rings, rings_to_mask, rle_to_mask, signed_area,
                                  simplify_dp)
from simpleseg_mm.serving.corrected import read_corrected

ROOT = Path(__file__).resolve().parent.parent
FIRST, NEW = 50, 200  # pictures that are annotated before and after training
GROUND = 0.65  # of its brightness is left of the ground
TARGETS = (0.8, 0.9, 0.95)  # IoU that is good enough; trained is what the middle one leaves
PART = 4  # the others are measured on one of so many new pictures
ELSEWHERE = 0.5  # IoU below which an answer is of something else
#: chosen on a seed of its own
TRAINING = ('train_cfg.max_iters=60', 'train_cfg.val_interval=60',
            'optim_wrapper.optimizer.lr=3e-4')
BATCH = 32
ACTIONS = ('clicks', 'moved', 'added', 'removed', 'drawn', 'deleted')
_CODECS = tuple(PolygonCodec('default', grammar='int1000', tokens=tokens)
                for tokens in (15, 20, 30, 40, 50, 60, 80, 100, 150, 200))


class Scene(NamedTuple):
    """A picture and the masks that its questions mean, (h, w) bool."""
    path: Path
    truths: dict[str, np.ndarray]


def draw_scenes(folder: Path, seed: int, split: str, count: int) -> list[Scene]:
    """Pictures of RefShapes on a dark ground, one question an object."""
    folder.mkdir(parents=True, exist_ok=True)
    scenes = []
    for index in range(count):
        scene = make_scene(seed, split, index)
        masks = {one['id']: rle_to_mask(one['segmentation']) for one in scene['annotations']}
        pixels = np.where(np.any(list(masks.values()), axis=0)[..., None], scene['pixels'],
                          (scene['pixels'] * GROUND).astype(np.uint8))
        path = folder / f'{split}_{index:04d}.png'
        Image.fromarray(pixels).save(path)
        scenes.append(Scene(path, {ref['sentences'][0]['sent']: masks[ref['ann_id']]
                                   for ref in scene['refs']}))
    return scenes


# --- the hand ----------------------------------------------------------------------------------
class Edges:
    """Counts pixels to the left of edges: sums of them over closed rings are areas.

    Args:
        truth: (h, w) bool.
    """

    def __init__(self, truth: np.ndarray) -> None:
        self.size = truth.shape
        self.before = np.pad(np.cumsum(truth, axis=1), ((0, 0), (1, 0)))

    def __call__(self, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        """From the ends of N edges, (N, 2) each, x then y: (N, 2) pixels of the picture and of the
        truth whose centres lie to the left, of rows that an edge crosses upwards; minus these of
        rows that it crosses downwards."""
        h, w = self.size
        (x0, y0), (x1, y1) = start.T[..., None], end.T[..., None]
        rows = np.arange(h) + 0.5
        sign = (y1 <= rows).astype(int) - (y0 <= rows)
        with np.errstate(divide='ignore', invalid='ignore'):
            x = x0 + (rows - y0) * (x1 - x0) / (y1 - y0)
        count = np.clip(np.ceil(np.where(sign == 0, 0, x) - 0.5), 0, w).astype(int)
        return np.stack([(sign * count).sum(1),
                         (sign * self.before[np.arange(h), count]).sum(1)], axis=1)

    def of_ring(self, ring: np.ndarray) -> np.ndarray:
        """(N, 2), of the edges that leave each vertex."""
        return self(ring, np.roll(ring, -1, axis=0))


class Action(NamedTuple):
    """What can be done: its kind, how many actions it is, and the ring that is put for one (a new
    one where ``number`` is that of none; none where ``ring`` is)."""
    kind: str
    cost: int
    number: int
    ring: np.ndarray | None


class Hand:
    """Corrects one outline towards the truth.

    Args:
        truth: (h, w) bool.
        target: IoU that is good enough.
    """

    def __init__(self, truth: np.ndarray, target: float) -> None:
        self.truth, self.target = truth, target
        rings = mask_to_rings(truth, 'edges')
        self.outline = np.concatenate([_dense(ring) for ring in rings])
        self.corners = np.concatenate([simplify_dp(ring.astype(np.float32), 1.0)
                                       for ring in rings]).astype(float)
        self.edges, self.area = Edges(truth), int(truth.sum())
        self.fresh = self._draw()

    def iou(self, rings: Sequence[np.ndarray]) -> float:
        if not rings:
            return 0.0
        return mask_iou(rings_to_mask(rings, self.truth.shape, 'edges'), self.truth)

    def correct(self, rings: Sequence[np.ndarray]) -> tuple[list[np.ndarray], Counter] | None:
        """Rings that are good enough, and what was done; None where drawing is less work."""
        rings, done, iou = list(rings), Counter(), self.iou(rings)
        most = sum(map(len, self.fresh))
        while iou < self.target:
            best = self._best(rings, iou)
            if best is None:
                return None
            action, rings, after = best
            done[action.kind] += action.cost
            left = most - done.total()  # of which none gains more than this one did
            if after < self.target and after + left * (after - iou) / action.cost < self.target:
                return None
            iou = after
        for ring in [one for one in rings if self._is_false(one)]:  # small, but of something else
            rings = [one for one in rings if one is not ring]
            done['removed'] += len(ring) - 2
        return (rings, done) if done.total() <= most and self.iou(rings) >= self.target else None

    def _is_false(self, ring: np.ndarray) -> bool:
        """Whether a part lies mostly beside the object, or a hole mostly in it."""
        inside = self.truth[rings_to_mask([ring], self.truth.shape, 'edges')]
        return (inside.mean() if inside.size else 0.0) < 0.5 if signed_area(ring) < 0 else \
            inside.size > 0 and inside.mean() > 0.5

    def _draw(self) -> list[np.ndarray]:
        """The fewest vertices that are good enough, as far as the codec finds them."""
        best: list[np.ndarray] = []
        packed = np.packbits(self.truth).tobytes()
        for number in range(len(_CODECS)):
            rings = _written(number, self.truth.shape, packed)
            if self.iou(rings) >= self.target:
                return rings
            best = rings
        return best

    def _best(self, rings: list[np.ndarray], iou: float
              ) -> tuple[Action, list[np.ndarray], float] | None:
        """What gains most an action, with the rings and the IoU after it; None: nothing does."""
        actions, sums = self._actions(rings)
        area, inside = np.abs(sums).T
        after = list(inside / (area + self.area - inside))
        for ring in self.fresh:  # what it has in common with others would count twice in sums
            actions.append(Action('drawn', len(ring), len(rings), ring))
            after.append(self.iou([*rings, ring]))
        gains = (np.array(after) - iou) / [one.cost for one in actions]
        for k in np.argsort(-gains, kind='stable')[:5]:  # the sums of rings that cross are others
            one = actions[k]
            changed = [ring for number, ring in enumerate(rings) if number != one.number]
            changed += [] if one.ring is None else [one.ring]
            found = self.iou(changed)
            if found > iou:
                return one, changed, found
        return None

    def _actions(self, rings: list[np.ndarray]) -> tuple[list[Action], np.ndarray]:
        """What can be done with vertices that are there; and pixels after it, (N, 2), of the
        outline and of the truth in it."""
        actions: list[Action] = []
        sums: list[np.ndarray] = []
        of_rings = [self.edges.of_ring(ring) for ring in rings]
        whole = sum(one.sum(0) for one in of_rings)
        for number, (ring, known) in enumerate(zip(rings, of_rings)):
            before, behind = np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0)
            into = np.roll(known, 1, axis=0)  # the edges that come to each vertex
            if len(ring) > 3:
                sums.append(whole - into - known + self.edges(before, behind))
                actions += [Action('removed', 1, number, np.delete(ring, k, axis=0))
                            for k in range(len(ring))]
            for kind, places, start, gone in (
                    ('moved', ring, before, into + known),
                    ('added', (ring + behind) / 2, ring, known)):
                points = np.stack([self._near(place) for place in places])
                count = points.shape[1]
                points = points.reshape(-1, 2)
                sums.append(whole - np.repeat(gone, count, axis=0)
                            + self.edges(np.repeat(start, count, axis=0), points)
                            + self.edges(points, np.repeat(behind, count, axis=0)))
                for k, point in enumerate(points):
                    vertex = k // count
                    kept = ring[vertex + 1:]
                    head = ring[:vertex] if kind == 'moved' else ring[:vertex + 1]
                    actions.append(Action(kind, 1, number,
                                          np.concatenate([head, point[None], kept])))
            if len(rings) > 1:  # vertex by vertex; the third last takes the ring along
                sums.append((whole - known.sum(0))[None])
                actions.append(Action('removed', len(ring) - 2, number, None))
        return actions, np.concatenate(sums)

    def _near(self, point: np.ndarray) -> np.ndarray:
        """Places on the true outline to which one would pull a vertex, (N, 2): the nearest, and
        the corners near by, the same number for every vertex."""
        nearest = self.outline[np.argmin(((self.outline - point)**2).sum(1))]
        order = np.argsort(((self.corners - point)**2).sum(1))[:3]
        return np.concatenate([nearest[None], self.corners[order]])


@functools.lru_cache(maxsize=20_000)  # for all targets
def _written(number: int, shape: tuple[int, int], packed: bytes) -> list[np.ndarray]:
    """The rings of a mask (its bits, packed) as a codec writes it."""
    bits = np.unpackbits(np.frombuffer(packed, np.uint8), count=shape[0] * shape[1])
    codec = _CODECS[number]
    answer = codec.decode(codec.encode(bits.reshape(shape).astype(bool)), shape)
    return [ring for part in answer.parts for ring in part.rings]


def _dense(ring: np.ndarray) -> np.ndarray:
    """A point a pixel along a ring of horizontal and vertical edges."""
    steps = np.roll(ring, -1, axis=0) - ring
    lengths = np.abs(steps).sum(1).astype(int)
    return np.concatenate([start + np.arange(n)[:, None] * step / max(n, 1)
                           for start, step, n in zip(ring, steps, lengths)])


def rings_of(polygons: Sequence[dict]) -> list[np.ndarray]:
    """Rings of the page's polygons, outer ones one way, holes the other."""
    return [_turned(np.array(ring, float), sign) for one in polygons
            for ring, sign in ((one['outer'], -1), *((hole, 1) for hole in one['holes']))]


def _turned(ring: np.ndarray, sign: int) -> np.ndarray:
    return ring if signed_area(ring) * sign >= 0 else ring[::-1]


def polygons_of(rings: Sequence[np.ndarray]) -> list[dict]:
    return [dict(outer=part.outer.tolist(), holes=[hole.tolist() for hole in part.holes])
            for part in group_rings(list(rings))]


# --- the page ----------------------------------------------------------------------------------
def answers_of(inferencer, scenes: Sequence[Scene], ask) -> list[dict | None]:
    """Answers to a question an object, as the page gets them, in order.

    Args:
        ask: number of an object, its expression and its mask -> what is asked; None: nothing.
    """
    pictures, prompts, places, number = [], [], [], 0
    for scene in scenes:
        asked = []
        for text, mask in scene.truths.items():
            prompt = ask(number, text, mask)
            if prompt is not None:
                asked.append(prompt)
                places.append(number)
            number += 1
        if asked:
            pictures.append(str(scene.path))
            prompts.append(asked)
    found: list[dict | None] = [None] * number
    results = inferencer.segment(pictures, prompts, batch_size=BATCH) if pictures else []
    for place, result in zip(places, results, strict=True):
        found[place] = result.to_dict()
    return found


def as_object(text: str, answer: dict | None, model: str) -> dict:
    """An object as the page makes it of an answer; of none, one that is drawn by hand."""
    polygons = [] if answer is None else [
        dict(outer=one['outer'], holes=one['holes']) for one in answer['polygons']]
    origin = None if answer is None else dict(
        prompt=answer['prompt'], polygons=polygons, score=answer['confidence'], model=model)
    return dict(label=text, polygons=polygons, score=answer and answer['confidence'],
                agreement=None, edited=False, hidden=False, locked=False, color='#e6194b',
                origin=origin, actions=dict.fromkeys(ACTIONS[:-1], 0))


def annotate_one(text: str, hand: Hand, said: dict, clicked: dict | None, model: str
                 ) -> tuple[dict, list[dict]]:
    """An object with its corrections, and the answers that were deleted for it."""
    found = [as_object(text, said, model)]
    if clicked is not None:
        found.append(as_object(text, clicked, model))
    clicks = len(found) - 1
    ways = []
    for one in found:
        others = [other for other in found if other is not one and other['polygons']]
        corrected = hand.correct(rings_of(one['polygons'])) if one['polygons'] else None
        if corrected is not None:
            rings, done = corrected
            ways.append((done.total() + len(others), one, rings, done, others))
    gone = [one for one in found if one['polygons']]
    ways.append((sum(map(len, hand.fresh)) + len(gone), as_object(text, None, model), hand.fresh,
                 Counter(drawn=sum(map(len, hand.fresh))), gone))
    _, one, rings, done, deleted = min(ways, key=lambda way: way[0])
    if done:
        one = dict(one, polygons=polygons_of(rings), edited=True, score=None)
    one['actions'] = {name: done[name] for name in ACTIONS[:-1]} | dict(clicks=clicks)
    return one, [dict(other['origin'], label=text) for other in deleted]


def annotate(scenes: Sequence[Scene], hands: Sequence[Hand], said: dict, model: str
             ) -> tuple[list[dict], list[dict]]:
    """Documents of the page, and a row an object: what was done, and IoU before and after.

    Args:
        hands: one an object, in order.
        said: see :func:`ask_all`.
    """
    documents, rows, number = [], [], 0
    for scene in scenes:
        height, width = Image.open(scene.path).size[::-1]
        objects, rejected = [], []
        for text in scene.truths:
            hand, answer = hands[number], said['text'][number]
            one, deleted = annotate_one(text, hand, answer, said['point'][number], model)
            rows.append(dict(
                one['actions'], deleted=len(deleted), picture=scene.path.name, question=text,
                before=hand.iou(rings_of(as_object(text, answer, model)['polygons'])),
                after=hand.iou(rings_of(one['polygons'])), by_hand=sum(map(len, hand.fresh))))
            objects.append(dict(one, id=f'o{number}'))
            rejected += deleted
            number += 1
        documents.append(dict(key=f'local:{scene.path.name}', name=scene.path.name, width=width,
                              height=height, objects=objects, done=True, rejected=rejected))
    return documents, rows


def hands_of(scenes: Sequence[Scene], target: float) -> list[Hand]:
    return [Hand(mask, target) for scene in scenes for mask in scene.truths.values()]


def ask_all(model: str | None, scenes: Sequence[Scene], kept: Path) -> dict:
    """Answers of a model to all expressions, and to a click where that was of something else;
    from the file where they are there."""
    if not kept.is_file():
        inferencer = SimpleSegInferencer(model, device='cpu', show_progress=False)
        texts = answers_of(inferencer, scenes, lambda number, text, mask: text)

        def click(number: int, text: str, mask: np.ndarray) -> dict | None:
            return None if is_of(texts[number], mask) else dict(
                point=[float(value) for value in mask_to_point(mask)])

        replace_json(kept, dict(text=texts, point=answers_of(inferencer, scenes, click)))
    return json.loads(kept.read_text())


def is_of(answer: dict, mask: np.ndarray) -> bool:
    """Whether an answer is mostly of what was asked for."""
    rings = rings_of(answer['polygons'])
    return bool(rings) and mask_iou(rings_to_mask(rings, mask.shape, 'edges'), mask) >= ELSEWHERE


# --- a round -----------------------------------------------------------------------------------
def run(log: Path, *command: str) -> None:
    with log.open('w') as file:
        code = subprocess.run([sys.executable, *map(str, command)], cwd=ROOT, stdout=file,
                              stderr=subprocess.STDOUT).returncode
    if code:
        tail = '\n'.join(log.read_text().splitlines()[-15:])
        raise SystemExit(f'{tail}\nannotator: {" ".join(map(str, command))} failed, see {log}')


def train(folder: Path, documents: Sequence[dict], options: Sequence[str]) -> Path:
    """A checkpoint that is trained on the corrections of these documents."""
    checkpoint = folder / 'run/last.txt'
    if not checkpoint.is_file():
        content, notes = to_corrections(map(read_corrected, documents))
        replace_json(folder / 'corrections' / CORRECTIONS_FILE, content)
        print(*notes, sep='\n')
        run(folder / 'own_data.log', 'tools/dataset_converters/own_data.py',
            folder / 'corrections', folder / 'mine', '--prompts')
        run(folder / 'train.log', 'tools/train.py', folder / 'mine/nano_mine.py', '--work-dir',
            folder / 'run', '--cfg-options', 'model.mllm.pretrained=simpleseg_mm://nano_sft',
            'train_dataloader.num_workers=0', 'train_dataloader.persistent_workers=False',
            'val_dataloader.num_workers=0', 'val_dataloader.persistent_workers=False', *options)
        from simpleseg_mm.engine.launch import find_checkpoint
        checkpoint.write_text(str(find_checkpoint(str(folder / 'run'))))
    return Path(checkpoint.read_text())


def one_round(folder: Path, seed: int, first: int, new: int, options: Sequence[str]) -> dict:
    """Rows of a seed: of the first pictures, and of the new ones before and after training."""
    scenes = draw_scenes(folder / 'corrections/images', seed, 'train', first)
    said = ask_all(None, scenes, folder / 'answers_first.json')
    documents, rows = annotate(scenes, hands_of(scenes, TARGETS[1]), said, 'nano_sft')
    replace_json(folder / 'documents.json', documents)
    found = dict(first=rows)
    checkpoint = train(folder, documents, options)
    scenes = draw_scenes(folder / 'new', seed, 'test', new)
    parts = {target: scenes if target == TARGETS[1] else scenes[:max(1, new // PART)]
             for target in TARGETS}
    hands = {target: hands_of(part, target) for target, part in parts.items()}
    for name, model in (('before', None), ('after', str(checkpoint))):
        said = ask_all(model, scenes, folder / f'answers_{name}.json')
        for target in TARGETS:
            _, found[f'{name} {target}'] = annotate(parts[target], hands[target], said,
                                                    model or 'nano_sft')
    return found


def total(row: dict) -> int:
    return sum(row[name] for name in ACTIONS)


def figures_of(rows: Sequence[dict]) -> dict[str, float]:
    """Means an object."""
    mean = {name: statistics.fmean(row[name] for row in rows)
            for name in (*ACTIONS, 'before', 'after', 'by_hand')}
    return dict(objects=len(rows), actions=statistics.fmean(map(total, rows)),
                accepted=statistics.fmean(not total(row) for row in rows), **mean)


def compared(rounds: Sequence[dict], target: float) -> dict:
    """Before and after on the same pictures: mean over the seeds, and their least and most."""
    found: dict = {}
    of_seeds = {name: [figures_of(one[f'{name} {target}']) for one in rounds]
                for name in ('before', 'after')}
    of_seeds['difference'] = [
        {key: after[key] - before[key] for key in before}
        for before, after in zip(of_seeds['before'], of_seeds['after'])]
    for name, rows in of_seeds.items():
        found[name] = {key: [round(statistics.fmean(row[key] for row in rows), 3),
                             round(min(row[key] for row in rows), 3),
                             round(max(row[key] for row in rows), 3)] for key in rows[0]}
    pairs = [(total(one), total(other)) for seed in rounds
             for one, other in zip(seed[f'before {target}'], seed[f'after {target}'])]
    found['objects with'] = dict(
        fewer=round(statistics.fmean(b > a for b, a in pairs), 3),
        as_many=round(statistics.fmean(b == a for b, a in pairs), 3),
        more=round(statistics.fmean(b < a for b, a in pairs), 3))
    return found


def plot(rounds: Sequence[dict], path: Path) -> None:
    """What is done for an object, by kind; and how many objects need how much."""
    import matplotlib
    matplotlib.use('Agg')
    from matplotlib import pyplot
    figure, (bars, shares) = pyplot.subplots(1, 2, figsize=(10, 3.6), layout='constrained')
    places, names = [], []
    for row, target in enumerate(TARGETS):
        for shift, name in enumerate(('before', 'after')):
            place, bottom = row * 3 + shift, 0.0
            places.append(place)
            names.append(f'{name}\n{target}')
            figures = [figures_of(one[f'{name} {target}']) for one in rounds]
            for number, kind in enumerate(ACTIONS):
                value = statistics.fmean(one[kind] for one in figures)
                bars.bar(place, value, 0.85, bottom, color=f'C{number}',
                         label=kind if not places[1:] else None)
                bottom += value
            bars.plot([place] * len(figures), [one['actions'] for one in figures], 'k.',
                      markersize=4, label='a seed' if not places[1:] else None)
    bars.set(ylabel='actions an object', xlabel='IoU that is good enough', xticks=places,
             ylim=(0, 1.3 * bars.get_ylim()[1]))
    bars.set_xticklabels(names, fontsize=8)
    bars.legend(fontsize=8, ncols=4, loc='upper left')
    for name in ('before', 'after'):
        counts = np.sort([total(row) for one in rounds for row in one[f'{name} {TARGETS[1]}']])
        shares.step(counts, np.arange(1, len(counts) + 1) / len(counts), where='post',
                    label=f'{name} training')
    by_hand = np.sort([row['by_hand'] for one in rounds for row in one[f'before {TARGETS[1]}']])
    shares.step(by_hand, np.arange(1, len(by_hand) + 1) / len(by_hand), where='post',
                label='drawn by hand, no model', color='0.6')
    shares.set(xlabel=f'actions until IoU {TARGETS[1]}', ylabel='share of objects',
               xlim=(-0.5, 25), ylim=(0, 1))
    shares.grid(alpha=0.3)
    shares.legend(fontsize=8, loc='lower right')
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80, metadata=dict(Software=None))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('out', type=Path, help='folder of everything')
    parser.add_argument('--seeds', type=int, default=3)
    parser.add_argument('--first-seed', type=int, default=1)
    parser.add_argument('--pictures', type=int, nargs=2, default=(FIRST, NEW),
                        metavar=('FIRST', 'NEW'))
    parser.add_argument('--plot', type=Path, help='.png file')
    parser.add_argument('--cfg-options', nargs='+', default=TRAINING, help='of the training')
    args = parser.parse_args()
    torch.set_num_threads(1)
    rounds = []
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        folder = (args.out / f'seed{seed}').resolve()
        rounds.append(one_round(folder, seed, *args.pictures, args.cfg_options))
        replace_json(folder / 'rows.json', rounds[-1])
        for name, rows in rounds[-1].items():
            print(f'seed {seed}, {name}: ' + '  '.join(
                f'{key} {value:.3f}' for key, value in figures_of(rows).items()), flush=True)
    if args.plot:
        plot(rounds, args.plot)
    print(json.dumps({str(target): compared(rounds, target) for target in TARGETS}))


if __name__ == '__main__':
    main()
