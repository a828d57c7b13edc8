"""Token losses that never hold a whole (N, V) tensor of fp32 logits."""
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.utils.checkpoint import checkpoint


def chunked_token_nll(hidden_ND: Tensor, weight_VD: Tensor, target_N: Tensor,
                      chunk: int = 512) -> tuple[Tensor, Tensor]:
    """Negative log-likelihood of each target token under a linear head.

    The head is applied to ``chunk`` tokens at a time and, where there are more, again in the
    backward pass, so the peak is ``chunk x V`` instead of ``N x V`` (at V = 152k and fp32, 0.6 GB
    instead of 10 GB for 16k tokens).

    Args:
        hidden_ND: (N, D) hidden states, in the head's dtype.
        weight_VD: (V, D) head weight.
        target_N: (N,) int64 token ids.
        chunk: tokens a pass.

    Returns:
        nll (N,) float32, and whether the head's first choice is the target (N,) bool.
    """
    if chunk < 1:
        raise ValueError(f'chunk={chunk}: give a positive number of tokens')

    def head(hidden: Tensor, weight: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        logits = (hidden @ weight.T).float()
        return (F.cross_entropy(logits, target, reduction='none'),
                logits.detach().argmax(-1) == target)

    if target_N.numel() == 0:
        return hidden_ND.sum(-1).float(), torch.zeros_like(target_N, dtype=torch.bool)
    return _by_chunks(head, hidden_ND, weight_VD, target_N, chunk)


def chunked_token_logp(hidden_ND: Tensor, weight_VD: Tensor, target_N: Tensor,
                       temperature: float = 1.0, chunk: int = 512) -> tuple[Tensor, Tensor]:
    """Log-probability of each target token under a linear head in fp32, for policy gradients.

    GSPO's clip band is narrower than the noise of a bf16 head, so logits are sums in fp32 (fp64
    stays). Chunks and peak as in :func:`chunked_token_nll`.

    Args:
        hidden_ND, weight_VD, target_N, chunk: as in :func:`chunked_token_nll`, of any dtype.
        temperature: of sampling; logits are divided by it.

    Returns:
        log-probabilities (N,), and the entropies (N,) of the distributions they were drawn from,
        without gradient, in nats; float32, or float64.
    """
    if chunk < 1:
        raise ValueError(f'chunk={chunk}: give a positive number of tokens')

    def head(hidden: Tensor, weight: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        logp = F.log_softmax(product(hidden, weight) / temperature, -1)
        with torch.no_grad():
            entropy = -(logp.exp() * logp).sum(-1)
        return logp.gather(1, target[:, None]).squeeze(1), entropy

    dtype = torch.promote_types(weight_VD.dtype, torch.float32)
    if target_N.numel() == 0:
        return hidden_ND.sum(-1).to(dtype), hidden_ND.new_zeros(0, dtype=dtype)
    if hidden_ND.dtype == weight_VD.dtype == torch.bfloat16 and writes_fp32(hidden_ND):
        product = _WideProduct.apply
    else:
        product, weight_VD = _raised_product, weight_VD.to(dtype)
    with torch.autocast(hidden_ND.device.type, enabled=False):
        return _by_chunks(head, hidden_ND, weight_VD, target_N, chunk)


def writes_fp32(tensor: Tensor) -> bool:
    """Whether the tensor's device multiplies bf16 as it is and gives the sums in fp32."""
    return tensor.is_cuda


class _WideProduct(Function):
    """(N, V) fp32 logits of bf16 states and a bf16 weight: products of such numbers are exact in
    fp32, so this is the product of both in fp32, at the speed of bf16 and without the copy. The
    gradient is rounded to bf16, as states and weight are."""

    @staticmethod
    def forward(ctx, hidden: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(hidden, weight)
        return torch.mm(hidden, weight.T, out_dtype=torch.float32)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        hidden, weight = ctx.saved_tensors
        gradient = gradient.to(hidden.dtype)
        return (gradient @ weight if ctx.needs_input_grad[0] else None,
                gradient.T @ hidden if ctx.needs_input_grad[1] else None)


def _raised_product(hidden: Tensor, weight: Tensor) -> Tensor:
    return hidden.to(weight) @ weight.T


def _by_chunks(head: Callable, hidden_ND: Tensor, weight_VD: Tensor, target_N: Tensor,
               chunk: int) -> tuple[Tensor, Tensor]:
    if len(target_N) <= chunk:
        return head(hidden_ND, weight_VD, target_N)
    count = -(-len(target_N) // chunk)  # of one size: a GPU loads a kernel for each new one
    parts = [checkpoint(head, hidden, weight_VD, target, use_reentrant=False) for hidden, target
             in zip(hidden_ND.tensor_split(count), target_N.tensor_split(count))]
    first, second = zip(*parts)
    return torch.cat(first), torch.cat(second)
