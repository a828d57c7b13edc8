"""Enhanced Muon for hidden matrices and AdamW for the rest, in one optimizer.

Muon: K. Jordan et al. 2024. 'Enhanced' (decoupled weight decay, update RMS matched to AdamW):
Moonlight, arXiv 2502.16982. The paper of SimpleSeg names Enhanced Muon and gives learning rates
only; every other number here is our choice (Moonlight's where it states one).
"""
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import islice
from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.adamw import adamw

from simpleseg_mm.registry import OPTIMIZERS

from .sharding import local, orthogonalize_sharded, shard_group

NS_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
# Matrices are stacked up to this many elements: beyond it a single product fills the device. Nor
# does AdamW raise more of a bfloat16 parameter to float32 at a time.
_MAX_STACK = 1 << 24


def orthogonalize(matrices: Tensor, steps: int = 5, eps: float = 1e-7) -> Tensor:
    """Approximate the polar factor of each matrix by Newton-Schulz iterations.

    Args:
        matrices: ``(n, r, c)`` floating point, r <= c. The iteration runs in its dtype.
        steps: number of quintic iterations.
        eps: smallest norm that is divided by.

    Returns:
        ``(n, r, c)``: U S' V^T with the singular values S' near 1 (within about 0.7 to 1.2).
    """
    a, b, c = NS_COEFFICIENTS
    x = matrices / matrices.norm(dim=(-2, -1), keepdim=True).clamp(min=eps)
    columns = x.shape[-1]
    if columns % 8:  # matrix units read 16 bytes at a time
        x = F.pad(x, (0, -columns % 8))
    for _ in range(steps):
        gram = torch.bmm(x, x.mT)
        gram = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, gram, x, beta=a)
    return x[..., :columns]


def load_master(param: Tensor, low: Tensor) -> Tensor:
    """The float32 value whose upper half is a bfloat16 ``param`` and whose rest is ``low``."""
    # A float32's halves side by side, lower half first: fewer passes over memory than shifts.
    halves = param.new_empty((*param.shape, 2), dtype=torch.int16)
    halves[..., 0] = low
    torch.add(param.view(torch.int16), low >> 15, out=halves[..., 1])
    return halves.view(torch.float32).squeeze(-1)


def store_master(master: Tensor, param: Tensor, low: Tensor) -> None:
    """Write float32 ``master`` as its nearest bfloat16 (``param``) and an int16 rest (``low``).

    ``load_master`` gives ``master`` back bit for bit.
    """
    halves = (master.view(torch.int32) + 0x8000).unsqueeze(-1).view(torch.int16)
    param.view(torch.int16).copy_(halves[..., 1])
    low.copy_(halves[..., 0] ^ -0x8000)


class _Matrix(NamedTuple):
    """One matrix: a parameter's, or an expert's of a stack. Views of this process's rows."""
    param: Tensor
    grad: Tensor
    momentum: Tensor
    low: Tensor | None  # of bfloat16 parameters
    shape: tuple[int, int]  # of all rows


#: who else has a matrix: every process of a data-parallel run (None), nobody (a split stack of
#: experts), or some of its rows the processes of a group
_Spread = str | dist.ProcessGroup | None
_ALONE = 'alone'


def _stack(matrices: Sequence[Tensor]) -> Tensor:
    """(n, r, c), r <= c, of matrices of one shape or its transpose."""
    return torch.stack([m.mT if m.shape[0] > m.shape[1] else m for m in matrices])


def _unstack(stack: Tensor, matrices: Sequence[Tensor]) -> list[Tensor]:
    """The matrices of a stack in the shapes of those that it was made of."""
    return [u if u.shape == m.shape else u.mT for u, m in zip(stack.unbind(), matrices)]


def _spread(param: Tensor) -> _Spread:
    group = shard_group(param)
    return _ALONE if group is not None and param.ndim == 3 else group


@cache
def _has_amx() -> bool:
    """Whether the CPU multiplies matrices of bfloat16; older releases of torch do not say."""
    known = getattr(torch.cpu, 'get_capabilities', dict)()
    return bool(known.get('amx_tile'))


def _chunks(items: Iterable, size: int) -> Iterator[list]:
    items = iter(items)
    while chunk := list(islice(items, size)):
        yield chunk


@OPTIMIZERS.register_module()
class MuonAdamW(Optimizer):
    """Muon where a parameter group says ``muon=True``, AdamW elsewhere.

    Both use the same learning rate and weight decay: Muon's update is scaled by
    ``0.2 * sqrt(max(rows, columns))``, the RMS of an AdamW update. Matrices of one shape (or its
    transpose) are orthogonalised in one batched product. A 3-D parameter (E, r, c) is a stack of
    experts, each orthogonalised by itself; where gate and up stand in one matrix, as one (ours).

    Parameters in bfloat16 are updated in float32: the bits that bfloat16 drops are kept in the
    state (2 bytes a value), so that small updates are not lost. That costs 2 bytes where a
    float32 copy costs 4.

    Args:
        params: parameters or groups. A group with ``muon=True`` holds matrices (r, c) and stacks
            of matrices (E, r, c) only.
        lr: learning rate of both parts.
        weight_decay: decoupled, of both parts (ours: 0.1, as Moonlight).
        momentum: of Muon.
        nesterov: of Muon.
        ns_steps: Newton-Schulz iterations.
        betas: of AdamW (ours).
        eps: of AdamW.
        ns_dtype: 'bfloat16' or 'float32'; None takes bfloat16 on a GPU and on a CPU with matrix
            instructions (AMX; twice as fast), and float32 on other CPUs, where it is faster.
        fused: torch's fused AdamW kernel.
        share: let each process of a data-parallel run orthogonalise a part of the matrices and
            send them to the others, instead of all doing all. Under ``fully_shard`` they always
            do.
    """

    def __init__(self,
                 params,
                 lr: float = 5e-5,
                 weight_decay: float = 0.1,
                 momentum: float = 0.95,
                 nesterov: bool = True,
                 ns_steps: int = 5,
                 betas: tuple[float, float] = (0.9, 0.95),
                 eps: float = 1e-8,
                 ns_dtype: str | None = None,
                 fused: bool = True,
                 share: bool = True):
        for name, value, high in [('lr', lr, math.inf), ('weight_decay', weight_decay, math.inf),
                                  ('momentum', momentum, 1), ('betas[0]', betas[0], 1),
                                  ('betas[1]', betas[1], 1), ('eps', eps, math.inf)]:
            if not 0 <= value < high:
                raise ValueError(f'{name}={value}: give a value in [0, {high}).')
        if ns_dtype not in (None, 'bfloat16', 'float32'):
            raise ValueError(f"ns_dtype={ns_dtype!r}: give 'bfloat16', 'float32' or None.")
        self._ns_dtype = ns_dtype
        self._share = share
        defaults = dict(lr=lr, weight_decay=weight_decay, momentum=momentum, nesterov=nesterov,
                        ns_steps=ns_steps, betas=tuple(betas), eps=eps, fused=fused, muon=False)
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict) -> None:
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        bad = [tuple(p.shape) for p in group['params'] if group['muon'] and p.ndim not in (2, 3)]
        if bad:
            raise ValueError('Muon updates matrices and stacks of matrices only, but its group '
                             f'holds shapes {bad[:5]}: put them into a group with muon=False '
                             '(MuonConstructor does).')

    @torch.no_grad()
    def step(self, closure=None):
        """Update every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group['params'] if p.grad is not None]
            if params:
                (self._muon_step if group['muon'] else self._adamw_step)(params, group)
        return loss

    def load_state_dict(self, state_dict: dict) -> None:
        """Load a state with its own dtypes (torch would cast every tensor to its parameter's)."""
        super().load_state_dict(state_dict)
        ids = [i for group in state_dict['param_groups'] for i in group['params']]
        params = [(p, group) for group in self.param_groups for p in group['params']]
        for i, (param, group) in zip(ids, params):
            for key, value in state_dict['state'].get(i, {}).items():
                on_cpu = key == 'step' and not group['fused']
                self.state[param][key] = value.to('cpu' if on_cpu else param.device, copy=True)

    def _low_bits(self, param: Tensor) -> Tensor:
        state = self.state[param]
        if 'low_bits' not in state:
            state['low_bits'] = torch.zeros_like(param, dtype=torch.int16)
        return local(state['low_bits'])

    def _muon_step(self, params: list[Tensor], group: dict) -> None:
        for p in params:
            if 'momentum_buffer' not in self.state[p]:
                self.state[p]['momentum_buffer'] = torch.zeros_like(p.grad)
            local(self.state[p]['momentum_buffer']).lerp_(local(p.grad), 1 - group['momentum'])
        buckets: dict[tuple, list[_Matrix]] = defaultdict(list)
        for p in params:
            key = (_spread(p), *sorted(p.shape[-2:]), p.dtype, p.device)
            buckets[key] += self._matrices(p)
        chunks: dict[_Spread, list[list[_Matrix]]] = defaultdict(list)
        for (spread, rows, columns, *_), bucket in buckets.items():
            chunks[spread] += _chunks(bucket, max(1, _MAX_STACK // (rows * columns)))
        # Each process orthogonalises one chunk of a round and sends it to the others.
        for spread, those in chunks.items():
            those.sort(reverse=True, key=lambda chunk: sum(
                math.prod(m.shape) * min(m.shape) for m in chunk))
            for chunks_of_round in _chunks(those, self._processes(spread)):
                updates = self._orthogonal(chunks_of_round, spread, group)
                for chunk, chunk_updates in zip(chunks_of_round, updates):
                    self._apply_muon(chunk, chunk_updates, group)

    def _matrices(self, param: Tensor) -> list[_Matrix]:
        """The matrices of an (r, c) or (E, r, c) parameter."""
        tensors = [local(t) for t in (param, param.grad, self.state[param]['momentum_buffer'])]
        if param.dtype == torch.bfloat16:
            tensors.append(self._low_bits(param))
        parts = zip(*(t.unbind() if t.ndim == 3 else (t, ) for t in tensors))
        return [_Matrix(*part[:3], part[3] if part[3:] else None, tuple(param.shape[-2:]))
                for part in parts]

    def _processes(self, spread: _Spread) -> int:
        if isinstance(spread, dist.ProcessGroup):
            return dist.get_world_size(spread)
        shared = spread is None and self._share and dist.is_initialized()
        return dist.get_world_size() if shared else 1

    def _orthogonal(self, chunks: list[list[_Matrix]], spread: _Spread,
                    group: dict) -> list[list[Tensor]]:
        """The update of each matrix of each chunk, in this process's rows of it."""
        raw = [[self._raw_update(m, group) for m in chunk] for chunk in chunks]
        if isinstance(spread, dist.ProcessGroup):
            return orthogonalize_sharded(
                [[m.shape for m in chunk] for chunk in chunks], raw, spread,
                lambda whole: _unstack(orthogonalize(_stack(whole), group['ns_steps']), whole))
        stacks = [_stack(updates) for updates in raw]
        self._orthogonalize(stacks, group['ns_steps'], shared=self._processes(spread) > 1)
        return [_unstack(stack, updates) for stack, updates in zip(stacks, raw)]

    def _raw_update(self, matrix: _Matrix, group: dict) -> Tensor:
        """Momentum in the type of the Newton-Schulz iteration."""
        update = matrix.momentum
        if group['nesterov']:
            update = matrix.grad.lerp(update, group['momentum'])
        return update.to(self._dtype(update.device))

    def _dtype(self, device: torch.device) -> torch.dtype:
        if self._ns_dtype is not None:
            return getattr(torch, self._ns_dtype)
        slow = device.type == 'cpu' and not _has_amx()
        return torch.float32 if slow else torch.bfloat16

    @staticmethod
    def _orthogonalize(stacks: list[Tensor], steps: int, shared: bool) -> None:
        for i in range(len(stacks)):
            if not shared or i == dist.get_rank():
                stacks[i] = orthogonalize(stacks[i], steps)
        if shared:
            for work in [dist.broadcast(s, i, async_op=True) for i, s in enumerate(stacks)]:
                work.wait()

    @staticmethod
    def _apply_muon(matrices: Sequence[_Matrix], updates: Sequence[Tensor], group: dict) -> None:
        decay = 1 - group['lr'] * group['weight_decay']
        alpha = -group['lr'] * 0.2 * math.sqrt(max(matrices[0].shape))
        for m, update in zip(matrices, updates):
            if m.low is None:
                m.param.mul_(decay).add_(update.to(m.param.dtype), alpha=alpha)
                continue
            master = load_master(m.param, m.low).mul_(decay).add_(update, alpha=alpha)
            store_master(master, m.param, m.low)

    def _adamw_step(self, params: list[Tensor], group: dict) -> None:
        for p in params:
            state = self.state[p]
            if 'step' not in state:
                dtype = torch.float32 if p.dtype == torch.bfloat16 else p.dtype
                device = p.device if group['fused'] else 'cpu'
                state['step'] = torch.zeros((), dtype=torch.float32, device=device)
                state['exp_avg'] = torch.zeros_like(p, dtype=dtype)
                state['exp_avg_sq'] = torch.zeros_like(p, dtype=dtype)
        for param in params:
            if param.dtype == torch.bfloat16:
                self._adamw_in_float32(param, group)
        params = [p for p in params if p.dtype != torch.bfloat16]
        if params:
            states = [self.state[p] for p in params]
            self._adamw([[local(p), local(p.grad), local(s['exp_avg']), local(s['exp_avg_sq']),
                          s['step']] for p, s in zip(params, states)], group)

    def _adamw_in_float32(self, param: Tensor, group: dict) -> None:
        """A part at a time: an embedding's master and gradient in float32 take four times its
        memory."""
        state = self.state[param]
        whole = [torch.atleast_1d(local(x)) for x in (
            param, self._low_bits(param), param.grad, state['exp_avg'], state['exp_avg_sq'])]
        rows = max(1, _MAX_STACK * len(whole[0]) // max(1, whole[0].numel()))
        parts = list(zip(*(x.split(rows) for x in whole)))
        for i, (values, low, grad, *averages) in enumerate(parts):
            master = load_master(values, low)
            step = state['step'] if i == len(parts) - 1 else state['step'].clone()  # counts one
            self._adamw([[master, grad.float(), *averages, step]], group)
            store_master(master, values, low)

    @staticmethod
    def _adamw(rows: list[list], group: dict) -> None:
        """Rows of a parameter, its gradient, both averages and its count of steps."""
        params, grads, averages, squares, steps = zip(*rows)
        adamw(list(params), list(grads), list(averages), list(squares), [], list(steps),
              fused=group['fused'], amsgrad=False, beta1=group['betas'][0],
              beta2=group['betas'][1], lr=group['lr'], weight_decay=group['weight_decay'],
              eps=group['eps'], maximize=False)
