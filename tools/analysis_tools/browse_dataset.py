"""Look at a dataset as training sees it: image, mask, vertices, prompt and answer.

    python tools/analysis_tools/browse_dataset.py configs/_base_/datasets/refshapes.py \\
        --out-dir work_dirs/browse --num 12

Writes one picture a sample and ``contact_sheet.png``. Green stripes: the true mask. Red: what the
answer says, decoded from its text. Blue: what the prompt gives. Samples come in the order of the
config's sampler.
"""
import argparse
import json
import textwrap
from itertools import islice
from pathlib import Path

from simpleseg_mm import stopping

if __name__ in ('__main__', '__mp_main__'):  # also while the libraries below are loaded
    stopping.end_in_one_line()

import numpy as np
from mmengine.config import DictAction
from mmengine.registry import init_default_scope
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from simpleseg_mm.polygon import ParsedAnswer, PolygonCodec, count_tokens, parse_answer
from simpleseg_mm.registry import DATA_SAMPLERS, DATASETS

RED, BLUE, GREEN = (220, 30, 40), (30, 90, 230), (40, 190, 90)
TEXT_LINES, LINE = 9, 15  # room below a tile of the contact sheet: lines, pixels a line


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config')
    parser.add_argument('--out-dir', type=Path, default=Path('work_dirs/browse_dataset'))
    parser.add_argument('--num', type=int, default=12, help='samples to draw')
    parser.add_argument('--mode', choices=('train', 'val', 'test'), default='train')
    parser.add_argument('--side', type=int, default=448, help='longer side of a picture, pixels')
    parser.add_argument('--columns', type=int, default=4, help='of the contact sheet')
    parser.add_argument('--seed', type=int, default=0, help='of the sampler')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    return parser.parse_args()


def draw_parsed(draw: ImageDraw.ImageDraw, parsed: ParsedAnswer, size: tuple[int, int],
                colour: tuple[int, int, int]) -> None:
    """Draw rings with their vertices, a box or a point on a picture of ``size`` (w, h)."""
    for ring in parsed.rings:
        points = [tuple(point) for point in ring * size]
        draw.line([*points, points[0]], fill=colour, width=2)
        for number, (x, y) in enumerate(points):
            r = 4 if number == 0 else 2.5
            draw.ellipse((x - r, y - r, x + r, y + r), fill='white', outline=colour)
    if parsed.box is not None:
        (x1, x2), (y1, y2) = (sorted(pair) for pair in (parsed.box * (size * 2)).reshape(2, 2).T)
        draw.rectangle((x1, y1, x2, y2), outline=colour, width=2)
    if parsed.point is not None:
        x, y = parsed.point * size
        draw.ellipse((x - 5, y - 5, x + 5, y + 5), fill=colour, outline='white', width=2)


def draw_sample(sample: dict, side: int) -> tuple[Image.Image, list[str]]:
    """Picture of one sample, and its text in lines."""
    data = sample['data_samples']
    mask = data.gt_masks.masks[0] > 0
    scale = side / max(mask.shape)
    size = tuple(max(1, round(v * scale)) for v in mask.shape[::-1])
    picture = Image.fromarray(sample['inputs'].numpy().transpose(1, 2, 0)).resize(
        size, Image.Resampling.BILINEAR)
    stripes = np.add.outer(np.arange(size[1]), np.arange(size[0])) % 9 < 2
    striped = np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST)) & stripes
    picture.paste(GREEN, mask=Image.fromarray(striped))
    draw = ImageDraw.Draw(picture)
    grammar = PolygonCodec.from_spec(data.codec).grammar if 'codec' in data else None
    lines = [f'{data.source} {data.split}, sample {data.img_id}, {data.task}']
    for prompt, answer in data.turns:
        if grammar is None:  # a question whose answer is no region
            lines += [f'> {prompt}', answer]
            continue
        draw_parsed(draw, parse_answer(prompt, grammar), size, BLUE)
        parsed = parse_answer(answer, grammar)
        draw_parsed(draw, parsed, size, RED)
        vertices = sum(map(len, parsed.rings))
        lines += [f'> {prompt}', f'{answer}  ({count_tokens(answer)} tokens'
                  + (f', {vertices} vertices)' if vertices else ')')]
    return picture, lines


def tile(picture: Image.Image, lines: list[str], side: int, limit: int | None) -> Image.Image:
    """The picture in a square, its text below it; at most ``limit`` lines of it."""
    font = ImageFont.load_default(12)
    wrapped = [row for line in lines for row in textwrap.wrap(line, max(20, side // 6))]
    if limit is not None and len(wrapped) > limit:
        wrapped = [*wrapped[:limit - 1], wrapped[limit - 1][:-3] + '...']
    sheet = Image.new('RGB', (side, side + LINE * (limit or len(wrapped)) + 6), 'white')
    sheet.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    draw = ImageDraw.Draw(sheet)
    for number, row in enumerate(wrapped):
        draw.text((4, side + 3 + number * LINE), row, fill='black', font=font)
    return sheet


def main() -> None:
    args = parse_args()
    from simpleseg_mm.config import read_config
    from simpleseg_mm.visualization import write_image  # loads torch: not for --help
    try:
        config = read_config(args.config, args.cfg_options)
        init_default_scope(config.get('default_scope', 'simpleseg_mm'))
        loader = config[f'{args.mode}_dataloader']
        dataset = DATASETS.build(loader.dataset)
        sampler = DATA_SAMPLERS.build(loader.sampler,
                                      default_args=dict(dataset=dataset, seed=args.seed))
    except (OSError, ValueError) as error:
        raise SystemExit(f'browse_dataset: {error}') from None
    args.out_dir.mkdir(parents=True, exist_ok=True)
    tiles = []
    for number, index in enumerate(tqdm(islice(sampler, args.num), total=args.num,
                                        unit='sample')):
        picture, lines = draw_sample(dataset[index], args.side)
        write_image(np.asarray(tile(picture, lines, args.side, None)),
                    args.out_dir / f'sample_{number:04d}.png')
        tiles.append(tile(picture, lines, args.side, TEXT_LINES))
    columns = min(args.columns, len(tiles))
    width, height = tiles[0].size
    sheet = Image.new('RGB', (width * columns, height * -(-len(tiles) // columns)), 'white')
    for number, picture in enumerate(tiles):
        sheet.paste(picture, (number % columns * width, number // columns * height))
    write_image(np.asarray(sheet), args.out_dir / 'contact_sheet.png')
    print(json.dumps(dict(samples=len(tiles), dataset=len(dataset), out_dir=str(args.out_dir))))


if __name__ == '__main__':
    main()
