"""Segment what words, points or boxes mean in pictures; write picture, SVG and GeoJSON.

    simpleseg segment simpleseg_mm://example.jpg "the orange ring"      # a generated scene
    simpleseg segment photo.jpg "the man in red" "the dog" --out-dir outputs
    simpleseg segment photos/ "cups" --all
    simpleseg segment photos/ --everything
    simpleseg segment photos/ --box 10 20 200 300 --model CONFIG --weights CHECKPOINT
    simpleseg segment photos/ "the dog" --endpoint http://localhost:8000/v1 --model FOLDER
"""
import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..choices import EXPORT_FORMATS, SET_FORMATS

if TYPE_CHECKING:
    from ..structures import Segmentation

#: options of --endpoint: how argparse reads them, and what they mean
SERVER_OPTIONS = {
    '--codec': ({}, 'how answers are written, such as int1000/default (as the folder of --model '
                'says; without it as the released weights write, fixed3/paper)'),
    '--served-model-name': (dict(metavar='NAME'), "the model's name there (the only one)"),
    '--api-key': (dict(metavar='KEY'), '(the environment\'s OPENAI_API_KEY)'),
    '--constrain': (dict(choices=['auto', 'vllm', 'sglang', 'llama.cpp']),
                    'hold answers to the grammar in the way of this server'),
    '--timeout': (dict(type=float, metavar='SECONDS'), 'of one attempt at an answer (120)'),
    '--retries': (dict(type=int, metavar='N'), 'further attempts after a failure (3)'),
    '--max-tokens': (dict(type=int, metavar='N'), 'of an answer (as the folder says, else 1024)'),
    '--max-pixels': (dict(type=int, metavar='N'), 'of a picture that is sent (as the folder '
                     'says, else as it is)'),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('image', help='picture, http(s) address, or folder of pictures')
    parser.add_argument('texts', nargs='*', metavar='TEXT', help='what to segment, in words')
    parser.add_argument('--all', action='store_true', help='every instance of each TEXT, an '
                        'outline each, instead of one')
    parser.add_argument('--everything', action='store_true', help='all objects, an outline and a '
                        'name each')
    parser.add_argument('--point', nargs=2, type=float, action='append', default=[],
                        metavar=('X', 'Y'), help='a point on the object, pixels')
    parser.add_argument('--box', nargs=4, type=float, action='append', default=[],
                        metavar=('X1', 'Y1', 'X2', 'Y2'), help='a box around it, pixels')
    parser.add_argument('--out-dir', default='outputs', help='folder to write (outputs)')
    parser.add_argument('--formats', nargs='*', choices=EXPORT_FORMATS,
                        default=['svg', 'geojson'], help='annotation files (svg geojson)')
    parser.add_argument('--sets', nargs='+', choices=SET_FORMATS, default=[], metavar='FORMAT',
                        help='complete data sets with the pictures, each in a folder of its own, '
                        f'OUT_DIR/FORMAT: {", ".join(SET_FORMATS)}')
    parser.add_argument('--exact', action='store_true', help='pixel-exact outlines in these '
                        "files instead of the model's vertices")
    add_model_arguments(parser)
    parser.add_argument('--batch-size', type=int, help='queries answered together (1; 8 requests '
                        'at a time with --endpoint)')


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Which model; for every command that runs one."""
    parser.add_argument('--model', help='config, checkpoint, Hugging Face folder, hub id or name; '
                        'the packaged nano_sft unless told, which knows generated scenes alone')
    parser.add_argument('--weights', help="checkpoint (.pth) or folder for the config's model")
    parser.add_argument('--device', help="such as cuda:0 or cpu; the GPU where there is one")
    parser.add_argument('--consensus', type=int, metavar='N', help='samples that are voted with '
                        'the greedy answer, such as 8: better outlines and a confidence that '
                        'ranks them, at several times the cost (docs/inference.md)')
    parser.add_argument('--second-look', action='store_true', help='ask again in a crop round '
                        'each small outline, and take that where it agrees: finer outlines of '
                        'small objects and in large pictures (docs/inference.md)')
    server = parser.add_argument_group(
        'a server', 'with --endpoint the model runs behind an OpenAI-compatible server (vLLM, '
        'SGLang, llama.cpp, ...); --model is then the exported folder that it serves, here')
    server.add_argument('--endpoint', metavar='URL', help='such as http://localhost:8000/v1')
    for name, (settings, text) in SERVER_OPTIONS.items():
        server.add_argument(name, **settings, help=text)


def inferencer_of(args: argparse.Namespace, **options):
    """The inferencer that the arguments name; torch is loaded only where the model runs here.

    Raises:
        ValueError: options of a server without one, or the reverse.
    """
    given = {name.lstrip('-').replace('-', '_'): name for name in SERVER_OPTIONS
             if getattr(args, name.lstrip('-').replace('-', '_')) is not None}
    if args.second_look:
        options['second_look'] = True
    if args.endpoint is None:
        if given:
            raise ValueError(f'{", ".join(given.values())} belong to a server: give its '
                             '--endpoint, or leave them out')
        from ..apis import SimpleSegInferencer  # loads torch: not for --help
        if args.consensus is not None:
            options['consensus'] = args.consensus
        return SimpleSegInferencer(args.model, args.weights, args.device, **options)
    if args.consensus is not None:
        raise ValueError('--consensus is for a model that runs here: a server is asked for one '
                         'answer. Leave it out, or give the folder as --model without --endpoint')
    if args.weights or args.device:
        raise ValueError('--weights and --device are for a model that runs here: the server of '
                         '--endpoint has its own. --model FOLDER says what it serves')
    from ..client import EndpointInferencer
    return EndpointInferencer(args.endpoint, args.model,
                              **{name: getattr(args, name) for name in given}, **options)


def main(args: argparse.Namespace) -> int:
    if args.all and not args.texts:
        raise ValueError('--all is about words: say of what every instance is meant')
    prompts = [*(dict(text=text, all=args.all) for text in args.texts),
               *(dict(point=point) for point in args.point),
               *(dict(box=box) for box in args.box),
               *[dict(everything=True)] * args.everything]
    if args.batch_size is not None and args.batch_size < 1:
        raise ValueError(f'--batch-size is {args.batch_size}; give a number from 1 on')
    if not prompts:
        raise ValueError('say what to segment: words, --point X Y, --box X1 Y1 X2 Y2 or '
                         '--everything')
    from ..export import check_set, export, export_set, notes_of
    from ..files import is_url, list_images, make_folder, upright_size
    from ..files.packaged import locate
    from ..structures import Prompt
    prompts = [Prompt.of(prompt) for prompt in prompts]
    args.image = locate(args.image)
    several = Path(args.image).is_dir()
    if several:  # said before a model is loaded
        list_images(args.image)
    elif not is_url(args.image):
        size = upright_size(args.image)
        for prompt in prompts:
            _check_place(prompt, size, args.image)
    sets = {name: check_set(Path(args.out_dir, name), name) for name in dict.fromkeys(args.sets)}
    make_folder(args.out_dir, '--out-dir', keep=False)
    inferencer = inferencer_of(args)
    alone = not several and (args.endpoint is None or len(prompts) == 1)
    results = inferencer.write(args.image, prompts, args.out_dir, batch_size=args.batch_size,
                               on_error='raise' if alone else 'skip')
    files = [path for name in args.formats
             for path in export(results, args.out_dir, name, exact=args.exact)]
    for result in results:
        print('\n'.join(lines_of(result)))
    for message, images in _warnings(results).items():
        what = images[0] if len(images) == 1 else f'{images[0]} and {len(images) - 1} more'
        print(f'warning: {what}: {message}', file=sys.stderr)
    notes = [note for name in args.formats for note in notes_of(results, name)]
    for name, folder in sets.items():
        notes += export_set(results, folder, name, exact=args.exact)
        files.append(folder)
    for note in dict.fromkeys(notes):
        print(f'exports: {note}', file=sys.stderr)
    for note in inferencer.notes:
        print(f'note: {note}', file=sys.stderr)
    for message in inferencer.errors:
        print(f'skipped: {message}')
    print(f'pictures: {args.out_dir}/vis   answers: {args.out_dir}/preds   '
          f'{"  ".join(str(path) for path in files[:4])}{" ..." if len(files) > 4 else ""}')
    return 1 if inferencer.errors else 0


def _check_place(prompt, size: tuple[int, int], image: str) -> None:
    """ValueError where a point or box is outside a picture of ``size`` (h, w)."""
    try:
        prompt.within(size)
    except ValueError as error:
        raise ValueError(f'{image}: {error}') from None


def _warnings(results) -> dict:
    """Each warning and the pictures that it is about."""
    found: dict = {}
    for result in results:
        for message in result.warnings:
            found.setdefault(message, {})[result.image] = None
    return {message: list(images) for message, images in found.items()}


def lines_of(result: 'Segmentation') -> list[str]:
    """An answer in a line; where several objects were asked for a line each of them, too."""
    what = f'{result.image}  {result.prompt}'
    if not result.mask.any():
        reason = ('no such object' if result.says_nothing else
                  'the answer was cut off' if not result.finished else 'no outline')
        return [f'{what}: {reason}; it wrote {result.text[:80]}']
    if not result.prompt.many:
        return [f'{what}: {_measured(result)}']
    found = [one for one in result.objects if one.box is not None]
    return [f'{what}: {len(found)} instances: {_measured(result)}',
            *(f'  {number}: {_named(one)}{_measured(one)}' for number, one in enumerate(found, 1))]


def _named(one: 'Segmentation') -> str:
    """The name of an object, where names were asked for."""
    from ..files import one_line
    if one.name is None:
        return ''
    return f'{one_line(one.name).strip() or "without a name"}: '


def _measured(result: 'Segmentation') -> str:
    holes = sum(len(part.holes) for part in result.parts)
    sure = '' if result.confidence is None else f', confidence {result.confidence:.2f}'
    sure += '' if result.answers == 1 else f' from {result.answers} answers'
    if result.looks:
        taken = sum(look.accepted for look in result.looks)
        sure += f', second look: {taken} of {len(result.looks)} taken'
    return (f'{int(result.mask.sum())} pixels, {len(result.parts)} part(s), {holes} hole(s)'
            f'{sure}')
