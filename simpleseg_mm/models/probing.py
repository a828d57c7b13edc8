"""Small passes that find out about a network what its configuration does not say."""
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from mmengine.logging import print_log
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

#: largest difference of one number computed in two ways, as a share of the largest
_NEAR, _NEAR_IN_16_BITS = 1e-3, 0.02


@contextmanager
def first_layers(network: nn.Module, graph: bool = False) -> Iterator[None]:
    """Within, only the first layer of each tower computes, and the others hand on what they are
    given; dropout is off. So large networks are looked at on slow devices. The layers stay where
    they are: transformers hangs hooks on them when they first run.

    Args:
        network: a :class:`~.network.Network`.
        graph: keep what a backward pass needs, in which a layer that hands on depends on its
            weights; else no gradient is kept.
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
                layer.forward = _handed_on(last, layer if graph else None)
    network.hf.eval()
    try:
        with torch.set_grad_enabled(graph):
            yield
    finally:
        for layer, forward in replaced:
            del layer.forward
            if forward is not None:
                layer.forward = forward
        for hook in hooks:
            hook.remove()
        network.hf.train(training)


def _handed_on(first: dict, layer: nn.Module | None) -> Callable:
    """A layer's ``forward`` that gives what it is given, in the form of the first layer's."""
    def forward(*args, hidden_states=None, **options):
        states = args[0] if args else hidden_states
        for parameter in layer.parameters() if layer is not None else ():
            if parameter.requires_grad:
                states = states + parameter.flatten()[0].to(states.dtype) * 0
        output = first['output']
        return (states, *output[1:]) if isinstance(output, tuple) else states
    return forward


def check_network(network: nn.Module, drawn: bool = False) -> None:
    """Reads a small picture with a network that no family of its own knows, and writes a token
    after it. Weights that take no part in an answer are then not trained: processes that share
    a batch would wait for their gradients.

    Args:
        network: a :class:`~.mllm.MLLM`.
        drawn: its weights are random. Those that take no part are then zero: a checkpoint leaves
            them out, and the next process would draw others.

    Raises:
        ValueError: the processor writes other than as many placeholders as the network makes
            features; the network changes its logits behind the head, which the losses and our
            decoding would miss; or it writes after a prompt otherwise than it reads the whole;
            one line.
    """
    if next(network.hf.parameters()).is_meta:
        return
    name, encoder, writer = type(network.hf).__name__, network.encoder, network.writer
    # of several tiles, where a processor cuts pictures into tiles
    picture = torch.full((3, 56, 112), 200, dtype=torch.uint8)
    batch = network.to_device(encoder.encode([picture], [[('a', None)]], for_generation=True))
    with first_layers(network, graph=True):
        try:
            hidden = network.hidden_states(batch)
        except (ValueError, RuntimeError, TypeError) as error:
            raise ValueError(
                f'{name} does not read what its processor writes for a small picture: '
                f'{_said(error)}. Settings of preprocessor_config.json or processor_config.json '
                'are not those of the weights (such as image_seq_length): fetch the folder again'
            ) from None
        ours = network.logits(hidden[:, -4:])
        _freeze_idle(network, ours, drawn)
    few = dict(logits_to_keep=4) if 'logits_to_keep' in inspect.signature(
        network.hf.forward).parameters else {}
    with first_layers(network):
        theirs = network.hf(**batch, **few).logits[:, -4:]
        if not _near(ours, theirs):
            raise ValueError(f'{name} changes its logits behind the head (a cap, a scale or a '
                             'bias), which the losses and the decoding here would miss: it '
                             'cannot be used')
        token = batch['input_ids'][:, -1:]
        longer = {key: torch.cat([value, value[:, -1:]], 1) if isinstance(value, Tensor)
                  and value.shape == batch['input_ids'].shape else value
                  for key, value in batch.items()}
        whole = network.hidden_states(longer)[:, -1]
        try:
            last, cache, position = writer.prefill(batch)
            cache = network.cache(cache, batch['attention_mask'], torch.zeros(
                1, dtype=torch.long, device=last.device))
            step = cache.read(writer.decode, token.cpu(), position.cpu())[:, 0]
        except (ValueError, RuntimeError, TypeError, AttributeError, IndexError) as error:
            raise ValueError(f'{name} does not write a token after a prompt that it has read: '
                             f'{_said(error)}. It cannot be used') from None
    if not (_near(last, hidden[:, -1]) and _near(step, whole)):
        raise ValueError(f'{name} reads a token after a prompt otherwise than the whole at once: '
                         'it cannot be used')


def _freeze_idle(network: nn.Module, output: Tensor, drawn: bool) -> None:
    """Weights on which an output does not depend are not trained; layers are looked at as one."""
    reached, functions, stack = set(), set(), [output.grad_fn]
    while stack:
        function = stack.pop()
        if function is None or function in functions:
            continue
        functions.add(function)
        reached.add(id(getattr(function, 'variable', None)))
        stack.extend(following for following, _ in function.next_functions)
    for layer in network.hf.modules():
        if isinstance(layer, GradientCheckpointingLayer):
            weights = set(map(id, layer.parameters()))
            reached |= weights if weights & reached else set()
    idle = {name: p for name, p in network.hf.named_parameters()
            if p.requires_grad and id(p) not in reached}
    for parameter in idle.values():
        parameter.requires_grad_(False)
        if drawn:
            parameter.data.zero_()
    if idle:
        parents = sorted({name.rpartition('.')[0] for name in idle})
        print_log(f'{type(network.family).__name__}: weights that take no part in an answer are '
                  f'not trained: {", ".join(parents)}', 'current')


def _near(found: Tensor, wanted: Tensor) -> bool:
    share = _NEAR_IN_16_BITS if wanted.dtype in (torch.float16, torch.bfloat16) else _NEAR
    found, wanted = found.detach().float(), wanted.detach().float()
    return found.shape == wanted.shape and torch.allclose(
        found, wanted, rtol=share, atol=share * float(wanted.abs().max()))


def _said(error: Exception) -> str:
    return ' '.join(str(error).split())[:300]
