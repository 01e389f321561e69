"""Networks that read images as bytes: standardised first, small, without batch normalisation."""

from __future__ import annotations

from torch import Tensor, nn

from mtbkd.student.pixels import pixels_like

_NARROW, _WIDE = 16, 32  # channels of the first block and of the others
_SIDE = 4  # blocks follow while the image is larger
_MOST_OUTPUT = 2**15  # parameters of the last layer, above which positions are averaged


def convolutional(images: Tensor, n_outputs: int) -> nn.Sequential:
    """A convolutional network for images of this size.

    Blocks of a convolution of 3 by 3, ReLU and maximum over 2 by 2 follow until four pixels or
    fewer are left on the shorter side, two blocks at least; then one linear layer. It has 6,090
    parameters for ten classes of 8 by 8 grey pixels, and 19,466 for 32 by 32 in colours.

    Args:
        images: Training images, uint8, shape (image, channel, height, width).
        n_outputs: Numbers that it returns.

    Example:
        >>> import torch
        >>> network = convolutional(torch.zeros(2, 3, 32, 32, dtype=torch.uint8), 10)
        >>> sum(parameter.numel() for parameter in network.parameters())
        19466
    """
    _, channels, height, width = images.shape
    layers: list[nn.Module] = [pixels_like(images)]
    wide, blocks = channels, 0
    while min(height, width) > 1 and (min(height, width) > _SIDE or blocks < 2):
        out = _WIDE if blocks else _NARROW
        layers += [nn.Conv2d(wide, out, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        height, width, wide, blocks = height // 2, width // 2, out, blocks + 1
    if wide * height * width * n_outputs > _MOST_OUTPUT:
        layers.append(nn.AdaptiveAvgPool2d(1))
        height = width = 1
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(wide * height * width, n_outputs))
