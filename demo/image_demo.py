"""Segment pictures with any trained model, in the manner of MMDetection's demo.

    python demo/image_demo.py scene.png CONFIG --weights CHECKPOINT --texts 'red circle'
"""
import argparse
import sys

from simpleseg_mm.apis import SimpleSegInferencer


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('inputs', help='picture, http(s) address or folder')
    parser.add_argument('model', nargs='?', help='config, checkpoint, Hugging Face folder or '
                        'name; the packaged nano unless told')
    parser.add_argument('--weights', help='checkpoint or Hugging Face folder')
    parser.add_argument('--texts', nargs='+', default=[], help='what to segment')
    parser.add_argument('--points', nargs='+', default=[], metavar='X,Y', help='points, pixels')
    parser.add_argument('--boxes', nargs='+', default=[], metavar='X1,Y1,X2,Y2',
                        help='boxes, pixels')
    parser.add_argument('--out-dir', default='outputs', help='folder of pictures and JSON')
    parser.add_argument('--device', help='such as cuda:0; the GPU where there is one')
    parser.add_argument('--batch-size', type=int, default=1, help='queries answered together')
    parser.add_argument('--show', action='store_true', help='show pictures in a window')
    parser.add_argument('--no-save-vis', action='store_true', help='write no pictures')
    parser.add_argument('--no-save-pred', action='store_true', help='write no JSON')
    parser.add_argument('--print-result', action='store_true', help='print the answers')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    prompts = [*args.texts, *(dict(point=point.split(',')) for point in args.points),
               *(dict(box=box.split(',')) for box in args.boxes)]
    try:
        inferencer = SimpleSegInferencer(args.model, args.weights, args.device)
        inferencer(args.inputs, prompts, batch_size=args.batch_size, show=args.show,
                   no_save_vis=args.no_save_vis, no_save_pred=args.no_save_pred,
                   print_result=args.print_result, out_dir=args.out_dir)
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f'image_demo: {error}')
    if not (args.no_save_vis and args.no_save_pred):
        print(f'results: {args.out_dir}')


if __name__ == '__main__':
    main()
