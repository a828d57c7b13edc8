"""Serve a page and a JSON API: ask a model about pictures, edit and export the outlines.

    simpleseg serve                                  # the packaged model, http://127.0.0.1:8600
    simpleseg serve --model CONFIG --weights CHECKPOINT --device cuda:0
    simpleseg serve --host 0.0.0.0 --allow-host seg.example.org
    simpleseg serve --endpoint http://localhost:8000/v1 --model FOLDER   # the model runs there

docs/serving.md describes the page, the API and the limits, docs/annotation_tools.md the protocols
of Label Studio and X-AnyLabeling.
"""
import argparse
import os
import sys

from .. import stopping
from .segment import add_model_arguments, inferencer_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser)
    parser.add_argument('--host', default='127.0.0.1', help='address to listen at (%(default)s: '
                        'this machine alone)')
    parser.add_argument('--port', type=int, default=8600, help='(%(default)s; 0: any free one)')
    parser.add_argument('--allow-host', nargs='+', default=[], metavar='NAME',
                        help='names by which browsers and Label Studio may call the server')
    parser.add_argument('--batch-size', type=int, default=8,
                        help='requests that are answered together (%(default)s)')
    parser.add_argument('--max-queue', type=int, default=64,
                        help='requests that may wait (%(default)s)')
    parser.add_argument('--max-client', type=int, default=16,
                        help='requests that may wait of one client (%(default)s)')
    parser.add_argument('--max-mb', type=float, default=20.0,
                        help='megabytes of an upload (%(default)s)')
    parser.add_argument('--max-megapixels', type=float, default=25.0,
                        help='of a picture (%(default)s)')
    parser.add_argument('--max-consensus', type=int, metavar='N', help='samples that a request '
                        'may have voted, where it asks for it (the number of --consensus)')
    parser.add_argument('--root', metavar='FOLDER', help='folder of pictures: requests may name '
                        'them by path, and the page lists and annotates them')
    parser.add_argument('--annotations', choices=('labelme', 'coco'), default='labelme',
                        help='format of the annotations in --root, which the page reads and '
                        'writes: labelme, NAME.json beside each picture, or coco, one '
                        'annotations.json in the folder, or the one COCO file that is there '
                        '(%(default)s)')
    parser.add_argument('--label-studio-url', help="where Label Studio's uploads are fetched; the "
                        'token for it is read from LABEL_STUDIO_API_KEY')


def main(args: argparse.Namespace) -> int:
    try:
        from ..serving import Engine, Settings, check_address, create_app, make_server
    except ImportError as error:
        raise ValueError(f"{error}: the server needs pip install 'simpleseg-mm[serve]'") from None
    if args.max_consensus is not None:
        if args.endpoint:
            raise ValueError('--max-consensus is for a model that runs here: the server of '
                             '--endpoint is asked for one answer. Leave it out')
        if not 0 <= args.max_consensus <= 1000:
            raise ValueError(f'--max-consensus is {args.max_consensus}; give a number of samples, '
                             '0 to 1000')
    if args.annotations != 'labelme' and not args.root:
        raise ValueError('--annotations is for the pictures of --root: give --root FOLDER, too')
    for name in ('batch_size', 'max_queue', 'max_client'):
        if getattr(args, name) < 1:
            raise ValueError(f'--{name.replace("_", "-")} is {getattr(args, name)}; give a number '
                             'from 1 on')
    check_address(args.host, args.port)
    settings = Settings(
        max_mb=args.max_mb, max_megapixels=args.max_megapixels, root=args.root,
        annotations=args.annotations,
        max_consensus=args.max_consensus, hosts=(*args.allow_host, args.host),
        label_studio_url=args.label_studio_url,
        label_studio_key=os.environ.get('LABEL_STUDIO_API_KEY'))
    inferencer = inferencer_of(args, show_progress=False)
    name = (inferencer.served_model_name if args.endpoint else
            args.weights or args.model or 'nano')
    engine = Engine(inferencer, args.batch_size, args.max_queue, args.max_client)
    app = create_app(engine, settings, os.path.basename(name.rstrip('/')))
    if app.state.folder is not None and app.state.folder.read_only:
        print(f'Nothing can be written in {args.root}: annotations are shown, and what is changed '
              'is kept in the browser alone', file=sys.stderr)
    # The model's thread hands the interpreter over thousands of times an answer, and gets it back
    # within this time where requests keep the other thread busy (5 ms unless told).
    sys.setswitchinterval(0.0005)
    server = make_server(app, settings, args.host, args.port, log_level='info',
                         timeout_graceful_shutdown=5)
    stopping.finished()  # the server takes the signals itself, and raises them again at its end
    server.run()
    return 0
