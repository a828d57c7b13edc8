"""Drawings of what belongs to what. Configs and imports are read from their files."""
import ast
from pathlib import Path

from look import (BLUE, GREEN, GREY, INK, ORANGE, PALE, PINK, RED, SKY, arrow, box, canvas, write)
from matplotlib.patches import FancyBboxPatch

ROOT = Path(__file__).resolve().parents[2]


def engines():
    figure, ax = canvas(368)
    rows = dict(learn=(GREEN, 66, 'Rollouts of RL', 'train.py'),
                test=(BLUE, 196, 'A test', 'test.py'),
                use=(RED, 326, 'Pictures of users', 'segment, serve'))
    write(ax, 104, 18, 'What asks', align='center', weight='bold')
    write(ax, 458, 18, 'What writes the answers', align='center', weight='bold')
    targets = dict(here=(66, 'The loop in this package', 'the default: exact, no setup'),
                   vllm=(196, 'vLLM in this process', 'continuous batching'),
                   server=(326, 'A server', 'vLLM, SGLang, llama.cpp, ...'))
    for color, y, title, line in rows.values():
        box(ax, 12, y - 30, 186, 60, title, [line], color)
    for y, title, line in targets.values():
        box(ax, 328, y - 30, 260, 60, title, [line], GREY)
    for k, (start, end) in enumerate([
            ('learn', 'here'), ('learn', 'vllm'), ('learn', 'server'), ('test', 'here'),
            ('test', 'vllm'), ('use', 'here'), ('use', 'server')]):
        color, y0, *_ = rows[start]
        y1 = targets[end][0]
        order = ('learn', 'test', 'use').index(start) - 1
        arrow(ax, (200, y0 + (y1 > y0) * 8 - (y1 < y0) * 8), (325, y1 + order * 13), color)
    return figure, ('Rollouts can be written by the loop in this package, by vLLM in this process '
                    'or by a vLLM server; a test by the loop or by vLLM in this process; pictures '
                    'of users by the loop or by any compatible server.')


def annotation_tools():
    figure, ax = canvas(404)
    box(ax, 12, 43, 176, 76, 'simpleseg serve', ['one model,', 'one address'], BLUE)
    box(ax, 12, 238, 176, 76, 'The same model', ['imported by', 'the tool'], BLUE)
    tools = [('Label Studio', 'ML backend', 43 + 28), ('X-AnyLabeling', 'remote server', 43 + 48),
             ('CVAT', 'function of cvat-cli', 238 + 18), ('FiftyOne', 'apply_model', 238 + 38),
             ('supervision', 'Detections', 238 + 58)]
    for k, (name, how, y) in enumerate(tools):
        top = 12 + 78 * k
        box(ax, 352, top, 236, 60, name, [how], GREEN)
        arrow(ax, (190, y), (349, top + 30))
    return figure, ('Label Studio and X-AnyLabeling ask a server started by simpleseg serve; '
                    'CVAT, FiftyOne and supervision import the model into a process of their own.')


def bases(path: Path) -> list[Path]:
    """The files that ``_base_`` of a config names."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == '_base_':
            found = ast.literal_eval(node.value)
            names = [found] if isinstance(found, str) else found
            return [(path.parent / name).resolve() for name in names]
    return []


def config_guide():
    child = ROOT / 'configs/simpleseg/ablations/gspo_group-4.py'
    recipe, = bases(child)
    pieces = bases(recipe)
    change = child.read_text().strip().rpartition('\n')[2]
    figure, ax = canvas(388)
    colors = [BLUE, GREEN, ORANGE, RED, GREY, PINK]
    for k, piece in enumerate(pieces):
        x, y = 12 + 196 * (k % 3), 12 + 84 * (k // 3)
        kind = piece.parent.name if piece.parent.name != '_base_' else 'runtime'
        box(ax, x, y, 184, 60, kind, [piece.name], colors[k])
    ax.plot([104, 104, 496, 496], [172, 184, 184, 172], color=GREY, lw=2)
    arrow(ax, (300, 184), (300, 210))
    box(ax, 120, 212, 360, 60, 'a recipe: one piece of each kind', [recipe.name], INK)
    arrow(ax, (300, 274), (300, 302))
    box(ax, 12, 304, 576, 72, f'a child: {child.name}', [change], INK)
    return figure, (f'The recipe {recipe.name} lists one piece of each kind as its bases; the '
                    f'child {child.name} names the recipe as its base and changes one key.')


def own_mllm():
    figure, ax = canvas(430)
    box(ax, 12, 12, 270, 62, 'picture', ['(3, H, W), 8 bits'], GREY)
    box(ax, 318, 12, 270, 62, 'prompt', ['“Output the polygon of ...”'], GREY)
    arrow(ax, (147, 76), (147, 106))
    arrow(ax, (453, 76), (453, 106))
    box(ax, 12, 108, 576, 66, 'Family: yours, Qwen, Kimi or any AutoProcessor',
        ['read_pictures, image_markup, chat template'], GREEN)
    arrow(ax, (300, 176), (300, 200))
    ax.add_patch(FancyBboxPatch((12, 202), 576, 144, boxstyle='round,pad=0,rounding_size=8',
                                facecolor=PALE, edgecolor=GREY, linewidth=1.6))
    write(ax, 300, 222, "transformers' own network, unchanged", align='center', weight='bold')
    for x, name, line, color in [(28, 'vision', 'encodes', SKY),
                                 (222, 'projector', 'joins', ORANGE),
                                 (416, 'llm', 'writes', BLUE)]:
        box(ax, x, 244, 156, 62, name, [line], color)
    arrow(ax, (186, 275), (219, 275))
    arrow(ax, (380, 275), (413, 275))
    write(ax, 300, 328, 'freeze, LoRA and 4 bits go by these three parts', align='center',
          color=GREY)
    arrow(ax, (494, 348), (494, 370))
    box(ax, 258, 372, 330, 44, '', ['[[[46,23],[33,33],[33,50],...]]'], RED)
    return figure, ('A family turns the picture and the prompt into tokens; the unchanged '
                    'network of transformers, with its parts vision, projector and llm, writes '
                    'the outline as text.')


def own_dataset():
    """The counts are those that the page gives of its example."""
    figure, ax = canvas(452)
    write(ax, 300, 20, 'Your files', align='center', weight='bold')
    for k, name in enumerate(('COCO', 'LabelMe', 'CVAT', 'Label Studio', 'YOLO', 'VOC')):
        box(ax, 12 + 196 * (k % 3), 38 + 48 * (k // 3), 184, 38, '', [name], GREY)
    arrow(ax, (300, 126), (300, 156))
    box(ax, 12, 158, 576, 62, 'own_data.py', ['reads, checks, splits; report.json counts all'],
        GREEN)
    for x in (104, 300, 496):
        arrow(ax, (x, 222), (x, 252))
    box(ax, 12, 254, 184, 82, 'to train', ['5,812 pictures', 'in the example'], BLUE)
    box(ax, 208, 254, 184, 82, 'to validate', ['306 pictures'], BLUE)
    box(ax, 404, 254, 184, 82, 'left out', ['2 pictures,', '162 objects'], RED)
    for x in (104, 300):
        arrow(ax, (x, 338), (x + (200 - x) * .3, 376))
    box(ax, 12, 378, 380, 62, 'train.py data/mine/nano_mine.py',
        ['a config that own_data.py wrote'], GREEN)
    write(ax, 496, 378 + 20, 'each with', align='center', color=GREY)
    write(ax, 496, 378 + 42, 'its reason', align='center', color=GREY)
    arrow(ax, (496, 338), (496, 378))
    return figure, ('The script own_data.py reads COCO, LabelMe, CVAT, Label Studio, YOLO and '
                    'VOC; in the example of this page it gives 5,812 pictures to train, 306 to '
                    'validate, and leaves out 2 pictures and 162 objects with their reasons.')


def imports_of_packages() -> dict[str, set[str]]:
    """Packages of simpleseg_mm -> the packages that their files import."""
    source = ROOT / 'simpleseg_mm'
    packages = {path.parent.name for path in source.glob('*/__init__.py')}
    found = {name: set() for name in packages}
    for name in packages:
        for path in (source / name).rglob('*.py'):
            place = ('simpleseg_mm', *path.relative_to(source).parent.parts)
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom) and node.level:
                    start = place[:len(place) - node.level + 1]
                    full = [*start, *(node.module or '').split('.'), *(
                        [] if node.module else [node.names[0].name])]
                    found[name] |= {part for part in full[1:2] if part in packages - {name}}
    return found


LAYERS = [
    ('Commands and tools', RED, ['commands', 'serving', 'integrations', 'study']),
    ('Ask, annotate, plan', PINK, ['apis', 'annotation', 'analysis']),
    ('Train', BLUE, ['engine', 'engines']),
    ('Draw, ask a server', SKY, ['visualization', 'client']),
    ('Network, data, metrics', GREEN, ['models', 'acceleration', 'datasets', 'evaluation']),
    ('Pure: no MMEngine, no transformers', ORANGE, ['rl', 'export', 'polygon', 'files'])]


def api():
    level = {name: k for k, (_, _, names) in enumerate(LAYERS) for name in names}
    imports = imports_of_packages()
    assert level.keys() == imports.keys() - {'zoo'}, level.keys() ^ imports.keys()
    up = {(name, other) for name in level for other in imports[name] if level[other] < level[name]}
    assert not up, f'imports that point up: {up}'
    figure, ax = canvas(82 * len(LAYERS) + 6)
    for k, (title, color, names) in enumerate(LAYERS):
        y = 8 + 82 * k
        write(ax, 14, y + 12, title, weight='bold')
        width = (576 - 8 * (len(names) - 1)) / len(names)
        for j, name in enumerate(names):
            box(ax, 12 + (width + 8) * j, y + 26, width, 38, '', [name], color)
        if k < len(LAYERS) - 1:
            arrow(ax, (560, y + 66), (560, y + 105))
    return figure, ('The packages of simpleseg_mm in six layers: commands, what asks and '
                    'annotates, training, drawing, the network with its data and metrics, and at '
                    'the bottom what needs neither MMEngine nor transformers; imports point down.')


def studies():
    import yaml
    study = yaml.safe_load((ROOT / 'configs/studies/nano_gspo_rewards.yaml').read_text())
    figure, ax = canvas(42 + 66 * len(study['arms']) + 124)
    for k, seed in enumerate(study['seeds']):
        write(ax, 336 + 96 * k, 22, f'seed {seed}', align='center', weight='bold')
    for row, (name, arm) in enumerate(study['arms'].items()):
        y = 42 + 66 * row
        write(ax, 12, y + 14, name, weight='bold')
        write(ax, 12, y + 37, arm['config'], color=GREY)
        for k in range(len(study['seeds'])):
            box(ax, 294 + 96 * k, y, 84, 48, '', ['train', 'test'], BLUE if row else GREEN)
            if row == 1:
                arrow(ax, (336 + 96 * k, y - 17), (336 + 96 * k, y - 1))
    y = 42 + 66 * len(study['arms'])
    arrow(ax, (432, y - 12), (432, y + 14))
    box(ax, 12, y + 18, 576, 60, 'table.md, table.tex, table.json, table.png',
        ['mean ± deviation; paired with the first row'], ORANGE)
    write(ax, 300, y + 104, 'a run that is done is never made again', align='center', color=GREY)
    return figure, ('A study of three arms and three seeds is nine runs of training and test; the '
                    'arms of GSPO start from the SFT run of the same seed, and one table collects '
                    'all figures.')


PICTURES = dict(engines=engines, annotation_tools=annotation_tools, config_guide=config_guide,
                own_mllm=own_mllm, own_dataset=own_dataset, api=api, studies=studies)
