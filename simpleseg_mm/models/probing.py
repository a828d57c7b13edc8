"""Small passes that find out about a network what its configuration does not say."""
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer


@contextmanager
def first_layers(network: nn.Module) -> Iterator[None]:
    """Within, only the first layer of each tower computes, and the others hand on what they are
    given; dropout is off, and no gradient is kept. So large networks are looked at on slow
    devices. The layers stay where they are: transformers hangs hooks on them when they first run.

    Args:
        network: a :class:`~.network.Network`.
    """
    training, replaced, hooks = network.hf.training, [], []
    for module in network.hf.modules():
        if (isinstance(module, nn.ModuleList) and len(module) > 1
                and isinstance(module[0], GradientCheckpointingLayer)):
            last: dict = {}
            hooks.append(module[0].register_forward_hook(
                lambda _, args, output, last=last: last.update(output=output)))
            for layer in module[1:]:
                replaced.append((layer, layer.__dict__.get('forward')))
                layer.forward = _handed_on(last)
    network.hf.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for layer, forward in replaced:
            del layer.forward
            if forward is not None:
                layer.forward = forward
        for hook in hooks:
            hook.remove()
        network.hf.train(training)


def _handed_on(first: dict) -> Callable:
    """A layer's ``forward`` that gives what it is given, in the form of the first layer's."""
    def forward(*args, hidden_states=None, **options):
        states = args[0] if args else hidden_states
        output = first['output']
        return (states, *output[1:]) if isinstance(output, tuple) else states
    return forward


def check_network(network: nn.Module, encoder) -> None:
    """Reads a small picture with a network that no family of its own knows.

    Raises:
        ValueError: the processor writes other than as many placeholders as the network makes
            features, or the network changes its logits behind the head, which the losses and our
            decoding would miss; one line.
    """
    if next(network.hf.parameters()).is_meta:
        return
    name = type(network.hf).__name__
    batch = network.to_device(encoder.encode(
        [torch.full((3, 64, 64), 128, dtype=torch.uint8)], [[('a', None)]], for_generation=True))
    with first_layers(network):
        try:
            hidden = network.hidden_states(batch)
        except (ValueError, RuntimeError) as error:
            said = ' '.join(str(error).split())[:300]
            raise ValueError(
                f'{name} does not read what its processor writes for a small picture: {said}. '
                'Settings of preprocessor_config.json or processor_config.json are not those of '
                'the weights (such as image_seq_length): fetch the folder again') from None
        theirs = network.hf(**batch).logits.float()
    ours = network.logits(hidden)
    if ours.shape != theirs.shape or not torch.allclose(
            ours, theirs, rtol=.02, atol=.02 * float(theirs.abs().max())):
        raise ValueError(f'{name} changes its logits behind the head (a cap, a scale or a bias), '
                         'which the losses and the decoding here would miss: it cannot be used')
