"""SigLIP so400m at 384 px with LLaVA-OneVision's projector in PyTorch, f32, random weights: times a tile.

    siglip_torch.py time THREADS REPETITIONS      prints one JSON object

It needs the packages torch and numpy; `vision` installs them. The layers are those of transformers, with its `sdpa` attention.
"""

import json
import sys
import time

import torch
from torch import nn
from torch.nn import functional

WIDTH, INNER, HEADS, LAYERS, OUT = 1152, 4304, 16, 26, 896
PIXELS, PATCH = 384, 14
PATCHES = (PIXELS // PATCH) ** 2


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.before, self.after = nn.LayerNorm(WIDTH, eps=1e-6), nn.LayerNorm(WIDTH, eps=1e-6)
        self.q, self.k, self.v, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.up, self.down = nn.Linear(WIDTH, INNER), nn.Linear(INNER, WIDTH)

    def forward(self, x):
        rows = self.before(x)
        q, k, v = (linear(rows).view(1, PATCHES, HEADS, -1).transpose(1, 2) for linear in (self.q, self.k, self.v))
        rows = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(1, PATCHES, WIDTH)
        x = x + self.out(rows)
        return x + self.down(functional.gelu(self.up(self.after(x)), approximate="tanh"))


class Tower(nn.Module):
    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, PATCH, stride=PATCH)
        self.positions = nn.Parameter(torch.randn(PATCHES, WIDTH) * 0.02)
        self.layers = nn.Sequential(*(Layer() for _ in range(LAYERS)))
        self.first, self.second = nn.Linear(WIDTH, OUT), nn.Linear(OUT, OUT)

    def forward(self, pixels):
        x = self.layers(self.patches(pixels).flatten(2).transpose(1, 2) + self.positions)
        return self.second(functional.gelu(self.first(x)))


@torch.inference_mode()
def measure(threads, repetitions):
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    tower, pixels = Tower().eval(), torch.randn(1, 3, PIXELS, PIXELS)
    rows = tower(pixels)
    if rows.shape != (1, PATCHES, OUT) or not torch.isfinite(rows).all() or rows.std() == 0:
        raise SystemExit("the rows are not finite: nothing is worth timing")
    seconds = []
    for _ in range(repetitions):
        started = time.perf_counter()
        tower(pixels)
        seconds.append(time.perf_counter() - started)
    print(json.dumps({"version": torch.__version__, "seconds": seconds}))


measure(int(sys.argv[2]), int(sys.argv[3]))
