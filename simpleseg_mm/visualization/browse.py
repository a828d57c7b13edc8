"""Pictures of a dataset's samples as training sees them, one each and all on a sheet."""
import textwrap
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm

from ..files import make_folder
from ..polygon import ParsedAnswer, PolygonCodec, count_tokens, parse_answer
from .draw import write_image

RED, BLUE, GREEN = (220, 30, 40), (30, 90, 230), (40, 190, 90)
TEXT_LINES, LINE = 9, 15  # room below a tile of the contact sheet: lines, pixels a line


def draw_samples(dataset, order: Iterable[int], count: int, folder: Path, side: int,
                 columns: int) -> int:
    """Write ``folder/sample_NNNN.png`` and ``folder/contact_sheet.png``; the samples drawn.

    Args:
        dataset: of this package; its items have ``inputs`` and ``data_samples``.
        order: numbers of samples, of which the first ``count`` are drawn.
        side: longer side of a picture, pixels.
        columns: of the sheet.
    """
    make_folder(folder, 'out_dir')
    tiles = []
    for number, index in enumerate(tqdm(islice(order, count), total=count, unit='sample')):
        picture, lines = draw_sample(dataset[index], side)
        write_image(np.asarray(tile(picture, lines, side, None)),
                    folder / f'sample_{number:04d}.png')
        tiles.append(tile(picture, lines, side, TEXT_LINES))
    columns = min(columns, len(tiles))
    width, height = tiles[0].size
    sheet = Image.new('RGB', (width * columns, height * -(-len(tiles) // columns)), 'white')
    for number, picture in enumerate(tiles):
        sheet.paste(picture, (number % columns * width, number // columns * height))
    write_image(np.asarray(sheet), folder / 'contact_sheet.png')
    return len(tiles)


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
