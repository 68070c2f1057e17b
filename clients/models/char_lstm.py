"""A recurrent network for the next character, its cells written out: PyTorch's fused LSTM does not run under ``vmap``.

S. Hochreiter, J. Schmidhuber, "Long Short-Term Memory", Neural Computation 9(8), 1997. Sizes after B. McMahan et al.,
AISTATS 2017, section 3, arXiv:1602.05629: characters embedded in 8 numbers, two layers of 256 units.

    i, f, g, o = W x_t + U h_{t-1} + b;   c_t = sigmoid(f) c_{t-1} + sigmoid(i) tanh(g);   h_t = sigmoid(o) tanh(c_t)

Legend: B batch, T characters, H units, V classes.
"""

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn

from clients.models._shapes import positive
from fl_sim.registry import offer


class _Layer(nn.Module):
    """One layer of LSTM cells: (B, T, n) -> (B, T, H). Weights as those of ``nn.LSTM``, uniform in +-1 / sqrt(H)."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.inward = nn.Linear(inputs, 4 * hidden)
        self.recurrent = nn.Linear(hidden, 4 * hidden, bias=False)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(hidden**-0.5), hidden**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Run over the sequence, from a state of zeros."""
        given = self.inward(x).unbind(1)
        h = torch.zeros_like(given[0][..., : self.hidden])
        c, outputs = h, []
        for own in given:
            i, f, g, o = (own + self.recurrent(h)).chunk(4, -1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
            outputs.append(h)
        return torch.stack(outputs, 1)


@offer("model", integers=True)
def char_lstm(
    inputs: tuple[int, ...],
    outputs: int,
    embedding: Annotated[int, Ge(1)] = 8,
    hidden: Annotated[int, Ge(1)] = 256,
    layers: Annotated[int, Ge(1)] = 2,
) -> nn.Module:
    """An embedding, ``layers`` of ``hidden`` LSTM units, a linear layer: scores (B, T, V) of the next characters.

    816 812 parameters with 76 characters. Raises ValueError for samples that are no sequences of integers (T,), and for
    sizes below 1.
    """
    if len(inputs) != 1:
        cure = "models for any shape: lr, 2nn, mlp"
        what = f"cannot take samples of shape {inputs}; it needs sequences of characters (T,)"
        raise ValueError(f"model.name = 'char-lstm': {what}; {cure}")
    for key, value in (("embedding", embedding), ("hidden", hidden), ("layers", layers)):
        positive(key, value)
    stack = [_Layer(embedding if n == 0 else hidden, hidden) for n in range(layers)]
    return nn.Sequential(nn.Embedding(outputs, embedding), *stack, nn.Linear(hidden, outputs))
