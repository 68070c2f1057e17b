"""The CNN of the project's founding texts, which is that of Caffe's MNIST example.

Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-Based Learning Applied to Document Recognition", Proceedings of
the IEEE 86(11), 1998; sizes from Y. Jia et al., "Caffe: Convolutional Architecture for Fast Feature Embedding", 2014,
arXiv:1408.5093, whose examples/mnist/lenet.prototxt has them.
"""

from torch import nn

from clients.models._shapes import image
from fl_sim.registry import offer


@offer("model", name="cnn-20-50")
def cnn_20_50(inputs: tuple[int, ...], outputs: int) -> nn.Module:
    """Two 5x5 convolutions (20 and 50 channels), each with 2x2 pooling and ReLU, then linear layers of 500 units and K.

    431 080 parameters on MNIST (800-500-10). ReLU comes after pooling, with which it commutes: the same function with a
    quarter of the work. Raises ValueError for pictures smaller than 16 x 16 pixels, of which pooling would leave
    nothing.
    """
    channels, height, width = image("cnn-20-50", inputs, smallest=16)
    rows, columns = (((side - 4) // 2 - 4) // 2 for side in (height, width))
    return nn.Sequential(
        *(nn.Conv2d(channels, 20, 5), nn.MaxPool2d(2), nn.ReLU()),
        *(nn.Conv2d(20, 50, 5), nn.MaxPool2d(2), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(50 * rows * columns, 500), nn.ReLU()),
        nn.Linear(500, outputs),
    )
