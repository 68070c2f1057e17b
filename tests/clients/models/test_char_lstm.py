"""The recurrent network against PyTorch's."""

from typing import Any

import torch
from torch import nn

from clients.models.char_lstm import char_lstm


def test_char_lstm_has_the_arithmetic_of_pytorchs_lstm() -> None:
    """Its outputs are those of nn.LSTM with the same weights, whose bias of the recurrent part is 0, in float64."""
    model = char_lstm((6,), 5, embedding=3, hidden=4).double()
    theirs = nn.LSTM(3, 4, num_layers=2, batch_first=True).double()
    with torch.no_grad():
        for n in (0, 1):
            own: Any = model[n + 1]  # type: ignore[index]
            getattr(theirs, f"weight_ih_l{n}").copy_(own.inward.weight)
            getattr(theirs, f"bias_ih_l{n}").copy_(own.inward.bias)
            getattr(theirs, f"weight_hh_l{n}").copy_(own.recurrent.weight)
            getattr(theirs, f"bias_hh_l{n}").zero_()
    x = torch.randint(0, 5, (2, 6))
    expected = model[3](theirs(model[0](x))[0])  # type: ignore[index]
    torch.testing.assert_close(model(x), expected, rtol=1e-12, atol=1e-12)
