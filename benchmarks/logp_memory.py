"""Peak memory of the log-probability pass: in chunks against a plain fp32 log-softmax.

    python benchmarks/logp_memory.py [--vocabulary 152064] [--answers 8] [--tokens 512]

Each way runs forward and backward in a process of its own; the peak is what it adds to the
states and the head's weight. Prints one JSON object.
"""
import argparse
import json
import resource
import subprocess
import sys
import time

import torch
import torch.nn.functional as F
from measure import device_name, row

from simpleseg_mm.models.losses import chunked_token_logp


def peak(device: str) -> float:
    """Most memory so far, in GiB."""
    if device == 'cuda':
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def plain(hidden, weight, target):
    return F.log_softmax(hidden.float() @ weight.float().T, -1).gather(1, target[:, None])


def measure(args: argparse.Namespace) -> dict:
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    torch.manual_seed(0)
    count = args.answers * args.tokens
    hidden = torch.randn(count, args.hidden, device=device, requires_grad=True)
    weight = torch.randn(args.vocabulary, args.hidden, device=device).mul_(0.02)
    target = torch.randint(args.vocabulary, (count, ), device=device)
    (hidden[:2] @ weight[:2].T).sum().backward()  # libraries are loaded
    hidden.grad = None
    before, start = peak(device), time.perf_counter()
    logp = (plain(hidden, weight, target) if args.way == 'plain'
            else chunked_token_logp(hidden, weight, target, chunk=args.chunk)[0])
    logp.sum().backward()
    return dict(gib=peak(device) - before, seconds=time.perf_counter() - start,
                logp_sum=float(logp.detach().double().sum()), device=device)


def both(arguments: list) -> dict:
    """What each way measured, in a process of its own."""
    found = {}
    for way in ('plain', 'chunked'):
        done = subprocess.run([sys.executable, __file__, *arguments, '--way', way], check=True,
                              text=True, capture_output=True)
        found[way] = json.loads(done.stdout.splitlines()[-1])
    return found


def rows(quick: bool = False) -> list:
    sizes = ['--vocabulary', '8000', '--tokens', '64'] if quick else []
    turns = [both(sizes) for _ in range(1 if quick else 3)]
    return [row('logp_memory', *([turn[way]['gib'] for turn in turns]
                                 for way in ('chunked', 'plain')), unit='GiB',
                device=device_name(),
                what='peak of forward and backward; the peer is a plain fp32 log-softmax')]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--vocabulary', type=int, default=152_064)
    parser.add_argument('--answers', type=int, default=8)
    parser.add_argument('--tokens', type=int, default=512)
    parser.add_argument('--hidden', type=int, default=512)
    parser.add_argument('--chunk', type=int, default=512, help="tokens; the model's default")
    parser.add_argument('--way', choices=['plain', 'chunked'], help='one way only')
    args = parser.parse_args()
    if args.way:
        print(json.dumps(measure(args)))
        return
    found = both(sys.argv[1:])
    print(json.dumps({**found, 'ratio': found['chunked']['gib'] / found['plain']['gib']}))


if __name__ == '__main__':
    main()
