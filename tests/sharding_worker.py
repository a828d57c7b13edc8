"""One process of a test of sharded Muon: prints the worst distance from the unsharded one."""
import copy
import json
import sys

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from simpleseg_mm.engine import MuonAdamW, processes

# odd rows, fewer rows than processes, both orientations, more matrices than one round holds
SHAPES = [(7, 5), (5, 7), (1, 8), (8, 1), (16, 4), (4, 16), (6, 6), (6, 6), (7, 5)]


def build(dtype):
    generator = torch.Generator().manual_seed(0)
    model = nn.Module()
    model.matrices = nn.ParameterList(
        nn.Parameter(torch.randn(s, generator=generator).to(dtype)) for s in SHAPES)
    model.experts = nn.Parameter(torch.randn(5, 4, 6, generator=generator).to(dtype))
    model.vector = nn.Parameter(torch.randn(5, generator=generator).to(dtype))
    return model


def optimizer(model):
    return MuonAdamW([dict(params=[*model.matrices, model.experts], muon=True),
                      dict(params=[model.vector], muon=False)],
                     lr=0.02, weight_decay=0.1, ns_dtype='float32')


def main():
    dist.init_process_group('gloo')
    world = dist.get_world_size()
    replicas = int(sys.argv[1])
    mesh = (init_device_mesh('cpu', (world, )) if replicas == 1 else
            init_device_mesh('cpu', (replicas, world // replicas),
                             mesh_dim_names=('replicate', 'shard')))
    worst = {}
    for dtype in (torch.float32, torch.bfloat16):
        plain = build(dtype)
        split = fully_shard(copy.deepcopy(plain), mesh=mesh)
        pairs = list(zip(plain.parameters(), split.parameters()))
        optimizers = optimizer(plain), optimizer(split)
        optimizers[0]._share = False
        for step in range(4):
            generator = torch.Generator().manual_seed(step)
            for p, q in pairs:
                p.grad = torch.randn(p.shape, generator=generator).to(dtype)
                q.grad = torch.distributed.tensor.distribute_tensor(
                    p.grad, q.device_mesh, q.placements)
            for o in optimizers:
                o.step()
        worst[str(dtype)] = max(float((p - q.full_tensor()).abs().max()) for p, q in pairs)
    if dist.get_rank() == 0:
        print(json.dumps(worst))
    processes.leave_processes()


if __name__ == '__main__':
    main()
