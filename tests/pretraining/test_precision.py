"""The choice of arithmetic: valid, and without a trace in the encoder."""

import copy

import torch

from siamray.config import EncoderConfig
from siamray.pretraining.encoder import build
from siamray.pretraining.precision import fastest_precision


def test_the_choice_is_valid_and_leaves_no_trace():
    encoder = build(EncoderConfig(), 0).eval()
    before = copy.deepcopy(encoder.state_dict())
    random = torch.get_rng_state()
    dtype, channels_last = fastest_precision(encoder, 32, 4)
    assert dtype in (torch.float32, torch.bfloat16)
    assert isinstance(channels_last, bool)
    after = encoder.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(random, torch.get_rng_state())
    assert not encoder.training
    assert all(value.grad is None and value.is_contiguous() for value in encoder.parameters())
