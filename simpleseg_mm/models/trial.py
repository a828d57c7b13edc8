"""A small batch on which a network is held to its plain path."""
import torch
from torch import Tensor, nn

from .families import Head
from .probing import first_layers


class Trial:
    """Two rows about one picture and one about another, of several lengths, as they are trained.

    Args:
        network: a :class:`~.network.Network`.
    """

    def __init__(self, network: nn.Module) -> None:
        family = network.family
        head = Head(family.image_markup, [], family.image_token_id, [])
        one, other = (torch.randint(256, (3, side, side), dtype=torch.uint8,
                                    generator=torch.Generator().manual_seed(side))
                      for side in (56, 140))
        self._apart, _ = family.read([one, one, other], head)
        self._shared, heads = family.read([one, other], head)
        text = family.tokenizer.encode('1 2 3', add_special_tokens=False)
        rows = [heads[0] + text, heads[0] + text[:1], heads[1] + text[-1:]]
        width = max(map(len, rows))
        ids = torch.tensor([row + text[:1] * (width - len(row)) for row in rows])
        self._real = torch.tensor([[i < len(row) for i in range(width)] for row in rows])
        self._texts = dict(input_ids=ids, attention_mask=self._real.long())
        if family.token_types:
            self._texts[family.token_types] = (ids == family.image_token_id).long()

    def states(self, network: nn.Module) -> Tensor:
        """Hidden states (2, N, D) of the rows' tokens, by the first layer of each tower: each row
        with a picture of its own, as for SFT, and sharing it where it can, as for RL."""
        with first_layers(network):
            apart = self._read(network, dict(self._texts, **self._apart))
            shared = (self._read(network, dict(self._texts, **self._shared,
                                               image_index=[0, 0, 1]))
                      if network.shares_images else apart)
        return torch.stack([apart, shared])

    def _read(self, network: nn.Module, batch: dict) -> Tensor:
        batch, places = network.lay_out(batch)
        hidden = network.hidden_states(batch).flatten(0, 1)
        return hidden[places[self._real].to(hidden.device)]
