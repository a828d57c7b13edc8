"""The chunked head against torch's own cross-entropy."""
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from simpleseg_mm.models import chunked_token_nll, losses
from simpleseg_mm.models.losses import chunked_token_logp


def test_rejects_an_empty_chunk():
    with pytest.raises(ValueError, match='chunk=0'):
        chunked_token_nll(torch.zeros(1, 2), torch.zeros(3, 2), torch.zeros(1, dtype=int), 0)


@pytest.mark.parametrize('tokens, chunk', [(0, 4), (1, 4), (7, 1), (7, 3), (8, 4), (8, 100)])
def test_equals_cross_entropy_and_its_gradient(tokens, chunk):
    torch.manual_seed(0)
    hidden = torch.randn(tokens, 6, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(11, 6, dtype=torch.float64, requires_grad=True)
    target = torch.randint(0, 11, (tokens, ))
    nll, hit = chunked_token_nll(hidden, weight, target, chunk)
    logits = hidden.detach() @ weight.detach().T
    expected = F.cross_entropy(logits, target, reduction='none')
    torch.testing.assert_close(nll.double(), expected, rtol=1e-6, atol=1e-6)
    assert hit.tolist() == (logits.argmax(-1) == target).tolist()
    if tokens:
        ours = torch.autograd.grad(nll.sum(), [hidden, weight])
        theirs = torch.autograd.grad(
            F.cross_entropy(hidden @ weight.T, target, reduction='sum'), [hidden, weight])
        for a, b in zip(ours, theirs):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def in_bfloat16(hidden, weight, target, coefficients, chunk):
    """Log-probabilities, and gradients of a weighted sum."""
    hidden, weight = (x.detach().requires_grad_() for x in (hidden, weight))
    logp, entropy = chunked_token_logp(hidden, weight, target, 0.7, chunk)
    (logp * coefficients).sum().backward()
    return logp, entropy, hidden.grad, weight.grad


def as_on_a_gpu(monkeypatch, mm=torch.mm):
    """There is no product of bf16 with sums in fp32 on a CPU: here is its arithmetic."""
    def product(a, b, out_dtype=None):
        return mm(a, b) if out_dtype is None else mm(a.to(out_dtype), b.to(out_dtype))

    monkeypatch.setattr(losses, 'writes_fp32', lambda tensor: True)
    monkeypatch.setattr(torch, 'mm', product)


@pytest.mark.parametrize('chunk', [3, 100])
@pytest.mark.parametrize('device', ['cpu', pytest.param('cuda', marks=pytest.mark.skipif(
    not torch.cuda.is_available(), reason='needs a CUDA device'))])
def test_sums_in_fp32_without_raising_the_weight(device, chunk, monkeypatch):
    torch.manual_seed(0)
    normal = partial(torch.randn, dtype=torch.bfloat16, device=device)
    hidden, weight = normal(16, 64), normal(48, 64)
    target = torch.randint(0, 48, (16, ), device=device)
    inputs = hidden, weight, target, torch.randn(16, device=device), chunk
    with monkeypatch.context() as patch:
        patch.setattr(losses, 'writes_fp32', lambda tensor: False)
        raised = in_bfloat16(*inputs)
    if device == 'cpu':
        as_on_a_gpu(monkeypatch)
    wide = in_bfloat16(*inputs)
    for a, b in zip(wide[:2], raised[:2]):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-5)
    for a, b in zip(wide[2:], raised[2:]):  # rounded once to bf16 before the product
        assert a.dtype == torch.bfloat16
        torch.testing.assert_close(a, b, rtol=0.02, atol=0.02 * float(b.abs().max()))
