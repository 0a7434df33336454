"""SigLIP so400m at 384 px with LLaVA-OneVision's projector in ONNX Runtime, f32, random weights: writes the model, or times a tile.

    siglip_onnx.py write MODEL.onnx
    siglip_onnx.py time MODEL.onnx THREADS REPETITIONS      prints one JSON object

It needs the packages onnxruntime and onnx; `vision` installs them. The graph is what transformers exports, with attention written out.
"""

import json
import sys
import time

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

WIDTH, INNER, HEADS, LAYERS, OUT = 1152, 4304, 16, 26, 896
PIXELS, PATCH = 384, 14
PATCHES = (PIXELS // PATCH) ** 2


class Graph:
    """Nodes and weights as they are added; every method gives the name of its result."""

    def __init__(self):
        self.nodes, self.weights, self.random = [], [], np.random.default_rng(0)

    def constant(self, values):
        name = f"c{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def drawn(self, *shape):
        return self.constant(self.random.standard_normal(shape, dtype=np.float32) * np.float32(0.02))

    def op(self, kind, *inputs, **attributes):
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def linear(self, x, columns, rows):
        return self.op("Add", self.op("MatMul", x, self.drawn(columns, rows)), self.drawn(rows))

    def norm(self, x):
        ones, zeros = np.ones(WIDTH, np.float32), np.zeros(WIDTH, np.float32)
        return self.op("LayerNormalization", x, self.constant(ones), self.constant(zeros), epsilon=1e-6, axis=-1)

    def attention(self, x):
        heads = self.constant(np.array([PATCHES, HEADS, WIDTH // HEADS]))
        turned = {"queries": [1, 0, 2], "keys": [1, 2, 0], "values": [1, 0, 2]}
        queries, keys, values = (self.op("Transpose", self.op("Reshape", self.linear(x, WIDTH, WIDTH), heads), perm=order)
                                 for order in turned.values())
        scale = self.constant(np.array((WIDTH // HEADS) ** -0.5, np.float32))
        weights = self.op("Softmax", self.op("MatMul", self.op("Mul", queries, scale), keys), axis=-1)
        rows = self.op("Transpose", self.op("MatMul", weights, values), perm=[1, 0, 2])
        return self.linear(self.op("Reshape", rows, self.constant(np.array([PATCHES, WIDTH]))), WIDTH, WIDTH)


def write(path):
    graph = Graph()
    x = graph.op("Conv", "pixels", graph.drawn(WIDTH, 3, PATCH, PATCH), graph.drawn(WIDTH),
                 strides=[PATCH, PATCH], kernel_shape=[PATCH, PATCH])
    x = graph.op("Transpose", graph.op("Reshape", x, graph.constant(np.array([WIDTH, PATCHES]))), perm=[1, 0])
    x = graph.op("Add", x, graph.drawn(PATCHES, WIDTH))
    for _ in range(LAYERS):
        x = graph.op("Add", x, graph.attention(graph.norm(x)))
        inner = graph.op("Gelu", graph.linear(graph.norm(x), WIDTH, INNER), approximate="tanh")
        x = graph.op("Add", x, graph.linear(inner, INNER, WIDTH))
    x = graph.linear(graph.op("Gelu", graph.linear(x, WIDTH, OUT)), OUT, OUT)
    graph.nodes.append(helper.make_node("Identity", [x], ["rows"]))
    inputs = [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [1, 3, PIXELS, PIXELS])]
    outputs = [helper.make_tensor_value_info("rows", TensorProto.FLOAT, [PATCHES, OUT])]
    whole = helper.make_graph(graph.nodes, "siglip", inputs, outputs, graph.weights)
    onnx.save(helper.make_model(whole, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


def measure(path, threads, repetitions):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    pixels = np.random.default_rng(1).standard_normal((1, 3, PIXELS, PIXELS), dtype=np.float32)
    rows = session.run(None, {"pixels": pixels})[0]
    if not np.isfinite(rows).all() or rows.std() == 0:
        raise SystemExit("the rows are not finite: nothing is worth timing")
    seconds = []
    for _ in range(repetitions):
        started = time.perf_counter()
        session.run(None, {"pixels": pixels})
        seconds.append(time.perf_counter() - started)
    print(json.dumps({"version": onnxruntime.__version__, "seconds": seconds}))


if sys.argv[1] == "write":
    write(sys.argv[2])
else:
    measure(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
