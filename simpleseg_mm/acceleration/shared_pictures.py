"""Pictures that several rows hold, encoded once, and put where their tokens stand."""
from inspect import signature

import torch
from torch import Tensor, nn

from ..models.network import BOOKKEEPING
from ..registry import MEASURES
from .measure import Measure


@MEASURES.register_module(name='shared_pictures')
class SharedPictures(Measure):
    """The vision tower runs once a picture: a batch of rows that share pictures names them by
    ``image_index``. The features go to the network by its own arguments: ``mm_encoder_outputs``,
    or, where a layout says where pictures' tokens are, ``inputs_embeds``, so that no mask is
    counted, for which a GPU would have to wait in the backward pass.

    For networks whose ``get_image_features(pixel_values, image_grid_thw)`` gives one
    ``pooler_output`` a picture.
    """
    of_family = True

    def obstacle(self, network: nn.Module) -> str | None:
        model = network.hf.model
        if 'mm_encoder_outputs' not in signature(type(model).forward).parameters:
            return 'its forward takes no mm_encoder_outputs'
        if 'image_grid_thw' not in signature(type(model).get_image_features).parameters:
            return 'its get_image_features takes no image_grid_thw'
        return None

    def install(self, network: nn.Module) -> None:
        self.network = [network]
        self.plain, network.run_model = network.run_model, self.run
        network.shares_images = True

    def remove(self, network: nn.Module) -> None:
        network.run_model = getattr(self, 'plain', network.run_model)
        network.shares_images = False

    def run(self, batch: dict[str, Tensor], **options):
        """transformers' output, as :meth:`Network.run`'s."""
        index, places = batch.get('image_index'), batch.get('picture_places')
        if 'pixel_values' not in batch or index is None and places is None:
            return self.plain(batch, **options)
        network, = self.network
        model = network.hf.model
        pictures = {key: value for key, value in batch.items()
                    if key == 'pixel_values' or key.startswith('image_') and key != 'image_index'}
        inputs = {key: value for key, value in batch.items()
                  if key not in pictures and key not in BOOKKEEPING}
        found = model.get_image_features(**pictures, return_dict=True)
        layers = getattr(found, 'deepstack_features', None)  # Qwen3-VL: features for other layers
        if index is not None:
            found.pooler_output = [found.pooler_output[i] for i in index]
            if layers is not None:
                found.deepstack_features = [[layer[i] for i in index] for layer in layers]
        if places is not None and layers is None:
            return model(inputs_embeds=self._embedded(inputs, found.pooler_output, places),
                         **{key: value for key, value in inputs.items()
                            if key not in ('input_ids', network.family.token_types)}, **options)
        if index is not None:
            inputs['image_grid_thw'] = batch['image_grid_thw'][index]  # positions are by row
        return model(**inputs, mm_encoder_outputs=dict(image=found), **options)

    def _embedded(self, inputs: dict[str, Tensor], features, places: Tensor) -> Tensor:
        """Embeddings (B, T, D) of the tokens, with the pictures' features at their places."""
        embedded = self.network[0].hf.get_input_embeddings()(inputs['input_ids'])
        features = torch.cat(list(features)).to(embedded)
        flat = embedded.flatten(0, 1)
        return flat.index_copy(0, places, features).view_as(embedded)
