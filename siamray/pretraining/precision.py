"""The fastest arithmetic here: an encoder and a batch size in, precision and memory format out."""

import copy
import time

import torch
from torch import nn

# bfloat16 rounds to three digits: it has to pay to be chosen.
LEAST_GAIN = 1.1
SECONDS = 1.2
MEASURED_PATCHES = 32


def fastest_precision(encoder: nn.Module, patch_pixels: int, batch: int) -> tuple[torch.dtype, bool]:
    """Measures forward and backward of float32 and bfloat16, contiguous and channels_last, for one to two seconds.

    Works on a copy: weights, batch norm statistics, gradients and random state stay as they are. The answer depends on
    the machine and its load, so a run that must be repeatable measures once and keeps the answer.

    Args:
        encoder: on the device it will train on; takes [N, 1, P, P] and returns features and embeddings.
        patch_pixels: side P of the patches.
        batch: patches per forward pass; at most 32 are measured, whose ranking is that of more.

    Returns:
        torch.float32 or torch.bfloat16, and whether channels_last is the faster memory format.
    """
    device = next(encoder.parameters()).device
    if device.type == "cuda":
        return torch.bfloat16, True
    candidates = [(torch.float32, False), (torch.float32, True), (torch.bfloat16, False), (torch.bfloat16, True)]
    count = max(2, min(batch, MEASURED_PATCHES))
    generator = torch.Generator().manual_seed(0)
    patches = torch.randn(count, 1, patch_pixels, patch_pixels, generator=generator).to(device)
    seconds: dict[tuple[torch.dtype, bool], float] = {}
    with torch.random.fork_rng(devices=[]):
        for dtype, channels_last in candidates:
            seconds[dtype, channels_last] = _step_seconds(encoder, patches, dtype, channels_last)
    # Ratios, as a plain minimum would choose bfloat16 for nothing but noise.
    return min(candidates, key=lambda choice: seconds[choice] * (LEAST_GAIN if choice[0] == torch.bfloat16 else 1.0))


def _step_seconds(encoder: nn.Module, patches: torch.Tensor, dtype: torch.dtype, channels_last: bool) -> float:
    """Seconds of the fastest of a few steps of a copy, after one step that only warms up."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = copy.deepcopy(encoder).to(memory_format=layout).train()
    inputs = patches.contiguous(memory_format=layout)
    best = float("inf")
    ends = time.perf_counter() + SECONDS / 4
    for step in range(8):
        start = time.perf_counter()
        with torch.autocast(patches.device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
            _, embedding = model(inputs)
        embedding.float().square().mean().backward()
        now = time.perf_counter()
        # The first step also allocates and picks kernels; it counts only if there is no time for another.
        best = min(best, now - start) if step != 1 else now - start
        if now > ends:
            break
    return best
