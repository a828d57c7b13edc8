"""What runs inside vLLM's worker, beside its own code: imports nothing but torch."""
from torch import nn


def pack_heads(network: nn.Module) -> None:
    """A head that shares the embeddings' weight has a packed copy of it on a CPU, which vLLM 0.32
    does not make anew when it reloads the weight."""
    for layer in network.modules():
        if hasattr(layer, 'tie_weights') and hasattr(layer, 'quant_method'):
            layer.quant_method.process_weights_after_loading(layer)


class PackedHeads:
    """A server's worker that can be told to do so: ``vllm serve --worker-extension-cls
    simpleseg_mm.engines.vllm_worker.PackedHeads``, of which vLLM makes a base of its worker."""

    def pack_heads(self) -> None:
        """By the name of ``/collective_rpc``."""
        pack_heads(self.get_model())
