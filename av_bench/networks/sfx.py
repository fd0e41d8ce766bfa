"""The aiSFX network: a small CNN that its authors trained on professional sound-effect libraries.

Ma and Lerch, "Representation Learning for the Automatic Indexing of Sound Effects Libraries", ISMIR 2022, model
"X-Sequential-CE"; weights CC BY 4.0, from the PyPI package aisfx 0.1.2. 4.7 M parameters, 512-dimensional embedding
of 100 mel frames (2.3 s), one classifier per training library. Attribute names follow the released checkpoint.
"""

from __future__ import annotations

import torch
from torch import nn

WIDTHS = (64, 128, 256, 512)
BANDS = 96
FRAMES = 100  # of one window
CLASSES = 78  # of the head that is used, "prosfx": UCS categories of the Pro Sound Effects library


class ConvBlock(nn.Module):
    """Two 3 x 3 convolutions with batch norm and ReLU, then a maximum over ``pool`` x ``pool``."""

    def __init__(self, inputs: int, outputs: int, pool: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)
        self.pool = nn.MaxPool2d(pool)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """``(B, inputs, T, F)`` -> ``(B, outputs, T // pool, F // pool)``."""
        hidden = torch.relu(self.bn1(self.conv1(image)))
        pooled: torch.Tensor = self.pool(torch.relu(self.bn2(self.conv2(hidden))))
        return pooled


class Embedding(nn.Module):
    """Four blocks; mean over frequency, maximum over time."""

    def __init__(self) -> None:
        super().__init__()
        inputs = (1, *WIDTHS[:-1])
        for number, (before, after) in enumerate(zip(inputs, WIDTHS, strict=True), 1):
            self.add_module(f"conv_block{number}", ConvBlock(before, after, 2 if number < len(WIDTHS) else 1))

    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        """Normalised mels ``(B, T, 96)`` -> ``(B, 512)``."""
        image = mel[:, None]
        for block in self.children():
            image = block(image)
        return image.mean(dim=3).amax(dim=2)


class SfxNet(nn.Module):
    """The embedding with the head "prosfx"."""

    def __init__(self) -> None:
        super().__init__()
        width = WIDTHS[-1]
        self.embedding_net = Embedding()
        head = nn.Sequential(
            nn.Linear(width, width // 2),
            nn.ReLU(),
            nn.Linear(width // 2, width // 4),
            nn.ReLU(),
            nn.Linear(width // 4, CLASSES),
        )
        self.fc = nn.ModuleList([head])

    def forward(self, mel: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalised mels ``(B, 100, 96)`` -> embedding ``(B, 512)``, logits ``(B, 78)``."""
        embedding = self.embedding_net(mel)
        return embedding, self.fc[0](embedding)
