"""From the CPU to where the network is."""
import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on a device, without waiting. A GPU takes it in the order of its work, from
    page-locked memory; a copy from other memory would first let the GPU do all that it has."""
    if device.type != 'cuda' or tensor.is_cuda:
        return tensor.to(device)
    with torch.cuda.device(device):  # page-locked memory belongs to the thread's present device
        return tensor.pin_memory().to(device, non_blocking=True)
