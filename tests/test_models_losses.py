"""The chunked head against torch's own cross-entropy."""
import pytest
import torch
import torch.nn.functional as F

from simpleseg_mm.models import chunked_token_nll


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
