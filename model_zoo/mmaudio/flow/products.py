"""Linear layers and short convolutions whose weights are arranged once for sampling: in the order that the processor
wants, and so that fewer multiplications are needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Tile = Literal[2, 4]
TAPS = 3  # of the filters that tiles are made for; longer filters are sums of such

# Winograd (1980); Lavin & Gray (arXiv 1509.09308), in one dimension. A row per product, a column per tap.
_FILTERS: dict[Tile, list[list[float]]] = {
    2: [[1, 0, 0], [1 / 2, 1 / 2, 1 / 2], [1 / 2, -1 / 2, 1 / 2], [0, 0, 1]],
    4: [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ],
}
_ROWS = 256  # a packed weight expects about so many; not those of the first call, on which last bits would depend
_AT_ONE = 1  # the product that enters every output with factor 1: a bias is added there


@dataclass(frozen=True)
class How:
    """What suits a device: the type of the products, outputs per tile of a ``TiledConv`` (None: the library's own
    convolution), and whether weights are laid out once for the CPU's library."""

    kind: torch.dtype = torch.float32
    tile: Tile | None = None
    pack: bool = False


def best_for(device: torch.device, half: bool, compiled: bool) -> How:
    """On a CPU tiles, of 2 in bf16 for the sake of rounding; packed weights where no compiler lays them out itself."""
    kind = torch.bfloat16 if half else torch.float32
    if device.type != "cpu":
        return How(kind)
    able = torch.backends.mkldnn.is_available() and (not half or torch.ops.mkldnn._is_mkldnn_bf16_supported())  # type: ignore[no-untyped-call]
    return How(kind, 2 if half else 4, pack=bool(able) and not compiled)


class Product(nn.Module):
    """``x W^T + b``. A packed weight takes the place of the plain one, which comes back when the module is moved."""

    weight: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None, how: How) -> None:
        """Copies ``weight`` ``(out, in)`` and ``bias`` ``(out,)``."""
        super().__init__()
        self.register_buffer("weight", weight.detach().to(how.kind, copy=True), persistent=False)
        self.register_buffer("bias", None if bias is None else bias.detach().to(how.kind, copy=True), persistent=False)
        self.pack = how.pack
        self._packed: Tensor | None = None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Product:
        if self._packed is not None:
            self.weight, self._packed = self._packed.to_dense(), None
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def forward(self, x: Tensor) -> Tensor:
        """``(..., in)`` -> ``(..., out)``; x has the type of the weight."""
        if not self.pack or x.device.type != "cpu":
            return functional.linear(x, self.weight, self.bias)
        if self._packed is None:
            self._packed = torch.ops.mkldnn._reorder_linear_weight(self.weight, _ROWS)
            self.weight = self.weight.new_empty(0)
        found: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._packed, self.bias, "none", [], "")
        return found


class TiledConv(nn.Module):
    """A convolution over tokens, ``(B, N, in)`` -> ``(B, N, out)``, zero-padded to the same length, as matrix products.

    A tile of 2 outputs takes 4 products instead of 6, one of 4 takes 6 instead of 12. By the variances of the terms,
    rounding errors are 1.3 times those of the plain sum for 2, which bf16 bears, and 3.3 times for 4. A filter of more
    taps is a sum of filters of three, the last one filled up with zeros.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, tile: Tile, how: How) -> None:
        """``weight`` ``(out, in, taps)`` with an odd number of taps."""
        super().__init__()
        taps = weight.shape[2]
        self.tile, self.before, self.parts = tile, (taps - 1) // 2, -(-taps // TAPS)
        filled = functional.pad(weight.detach(), (0, self.parts * TAPS - taps))
        filled = filled.view(*weight.shape[:2], self.parts, TAPS)
        filters = torch.tensor(_FILTERS[tile], dtype=torch.float64, device=weight.device)
        self.products = nn.ModuleList()
        for j, row in enumerate(filters):
            factor = (filled.double() @ row).transpose(1, 2).flatten(1)  # (out, parts * in)
            self.products.append(Product(factor, bias if j == _AT_ONE else None, how))

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        batch, length, _ = x.shape
        tiles = -(-length // self.tile)
        after = tiles * self.tile - length + self.parts * TAPS - 1 - self.before
        padded = functional.pad(x, (0, 0, self.before, after))
        terms = [self._mixed(padded[:, TAPS * part :], tiles) for part in range(self.parts)]
        inputs = terms[0] if self.parts == 1 else [torch.cat(parts, dim=-1) for parts in zip(*terms, strict=True)]
        made = [product(given) for product, given in zip(self.products, inputs, strict=True)]
        out = x.new_empty(batch, tiles, self.tile, made[0].shape[-1])
        (_two_outputs if self.tile == 2 else _four_outputs)(made, out)
        return out.flatten(1, 2)[:, :length]

    def _mixed(self, signal: Tensor, tiles: int) -> list[Tensor]:
        """One ``(B, tiles, in)`` per product."""
        shifts = [signal[:, i :: self.tile][:, :tiles] for i in range(self.tile + TAPS - 1)]
        return (_two_inputs if self.tile == 2 else _four_inputs)(shifts)


def _two_inputs(d: Sequence[Tensor]) -> list[Tensor]:
    """From four neighbours."""
    return [d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]]


def _two_outputs(m: Sequence[Tensor], out: Tensor) -> None:
    """Four products into ``(B, tiles, 2, C)``."""
    torch.add(m[0] + m[1], m[2], out=out[:, :, 0])
    torch.sub(m[1] - m[2], m[3], out=out[:, :, 1])


def _four_inputs(d: Sequence[Tensor]) -> list[Tensor]:
    """From six neighbours."""
    even, odd = torch.sub(d[4], d[2], alpha=4), torch.sub(d[3], d[1], alpha=4)
    near, far = d[4] - d[2], (d[3] - d[1]).mul_(2)
    first = torch.sub(d[4], d[2], alpha=5).add_(d[0], alpha=4)
    last = torch.sub(d[5], d[3], alpha=5).add_(d[1], alpha=4)
    return [first, even + odd, even - odd, near + far, near - far, last]


def _four_outputs(m: Sequence[Tensor], out: Tensor) -> None:
    """Six products into ``(B, tiles, 4, C)``."""
    even, odd = m[1] + m[2], m[1] - m[2]
    far_even, far_odd = m[3] + m[4], m[3] - m[4]
    torch.add(m[0] + even, far_even, out=out[:, :, 0])
    torch.add(odd, far_odd, alpha=2, out=out[:, :, 1])
    torch.add(even, far_even, alpha=4, out=out[:, :, 2])
    torch.add(odd.add_(m[5]), far_odd, alpha=8, out=out[:, :, 3])
