"""The model as an OpenVINO graph: on a CPU the fastest way through it for a query or a chunk.

Knows Qwen3's layer in OpenVINO's operators, and how OpenVINO is told to run it; must not know texts or calls. The graph
is written here instead of converted from torch: that takes seconds in place of half a minute, and no converter that
reports its use.
"""

from __future__ import annotations

import math
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ...errors import EncodingError, InputError, MissingDependencyError
from ...flow import in_own_thread
from ..devices import default_batch_tokens, resolve_device, resolve_dtype
from ..pooling import span_means
from ..qwen3.network import NetworkConfig, empty_network, rotary_frequencies, tensor_shapes
from ..sequences import TokenSequence
from ..tensors import read_tensors
from .base import Backend, Loading, Pooled

Array = npt.NDArray[Any]
_FEW = 20


class OpenVinoBackend(Backend):
    """A model compiled by OpenVINO for this process's CPU; computes what `TorchBackend` does.

    Sequences of one length share a call; there is no padding, and no mask.

    Args:
        loading: What is loaded.
        device: `"cpu"` or None.

    Raises:
        CheckpointError: The files are damaged or incomplete.
        EncodingError: OpenVINO computes something else the second time.
        InputError: Another device is asked for.
        MissingDependencyError: OpenVINO is not installed.
    """

    def __init__(self, loading: Loading, device: str | None) -> None:
        place = self.place(device)
        openvino = _openvino()
        config = NetworkConfig.from_folder(loading.folder)
        shapes = tensor_shapes(empty_network(config))
        dtype = resolve_dtype(loading.dtype, device=place, parameters=sum(map(math.prod, shapes.values())))
        tensors = {name: tensor.float().numpy() for name, tensor in read_tensors(loading.folder, shapes)}
        graph = _Graph(openvino, config, tensors, int8=loading.weights == "int8")
        # OpenVINO gives the thread that starts it a stack for signals, and unmaps that at its own end, in whichever
        # thread that comes: a Ctrl-C would then kill the process. So it is started in a thread without a future.
        compiled = in_own_thread(lambda: openvino.Core().compile_model(graph.model(), "CPU", _settings(dtype))).result()
        self._request = compiled.create_infer_request()
        # The graph reads the memory-mapped files for as long as it lives. Attributes go in the order in which they
        # came, and OpenVINO may drop its references without the interpreter's lock: none of them is to be the last.
        self._tensors = tensors
        self._frequencies = rotary_frequencies(config)
        self.width: int = config.hidden_size
        self.batch_tokens = default_batch_tokens(place, self.width)
        self._warm_up()

    @classmethod
    def place(cls, device: str | None) -> torch.device:
        """Return the CPU, also by default.

        Raises:
            InputError: Another device is asked for.
        """
        place = resolve_device(device or "cpu")
        if place.type != "cpu":
            raise InputError(f'backend="openvino" runs on the CPU alone, and device is {device!r}; leave backend out')
        return place

    def run(self, sequences: list[TokenSequence]) -> Pooled:
        """Run sequences through the model and return the float32 mean over each span, `[spans, width]`."""
        rows: dict[int, Pooled] = {}
        order = sorted(range(len(sequences)), key=lambda index: len(sequences[index].ids))
        for length, equal in groupby(order, key=lambda index: len(sequences[index].ids)):
            indices = list(equal)
            hidden = self._hidden(np.stack([sequences[index].ids for index in indices]), length)
            for index, states in zip(indices, hidden, strict=True):
                rows[index] = span_means(torch.from_numpy(states), sequences[index].spans).numpy()
        return np.concatenate([rows[index] for index in range(len(sequences))])

    def _hidden(self, ids: Array, length: int) -> Array:
        angles = torch.outer(torch.arange(length, dtype=torch.float32), self._frequencies).repeat(1, 2)[None, None]
        [hidden] = self._request.infer([ids.astype(np.int64), angles.cos().numpy(), angles.sin().numpy()]).values()
        states: Array = hidden.copy()  # the next call writes where this one wrote
        return states

    def _warm_up(self) -> None:
        """Run a few tokens, then one, then the few again.

        In float32 OpenVINO 2026.4 gives wrong vectors for 16 tokens and more if the first it ever sees is a single
        one. Should another order trip another version, this refuses to go on.
        """
        ids = np.arange(2 * _FEW).reshape(2, _FEW) % 100
        first, _, again = (self._hidden(each, each.shape[1]) for each in (ids, ids[:, :1], ids))
        if not np.array_equal(first, again):
            raise EncodingError(
                "OpenVINO gives other vectors for the same text; leave backend out, or try another version"
            )

    def check_trainable(self) -> None:
        """Refuse: there is a graph of OpenVINO's and no torch model.

        Raises:
            InputError: Always.
        """
        raise InputError('with backend="openvino" there is no torch model; leave backend out to have one')


class _Graph:
    """Qwen3 without a mask, in OpenVINO's operators.

    Args:
        openvino: The package.
        config: Sizes.
        tensors: float32 weights by their published names.
        int8: Round the weights of linear layers to 8 bits, a step for each row.
    """

    def __init__(self, openvino: Any, config: NetworkConfig, tensors: dict[str, Array], *, int8: bool) -> None:
        self.openvino = openvino
        self.ops = openvino.opset13
        self.config = config
        self.tensors = tensors
        self.int8 = int8

    def model(self) -> Any:
        """Return the graph: ids `[n, tokens]`, cosine and sine `[1, 1, tokens, head_dim]` to `[n, tokens, width]`."""
        ops, width = self.ops, self.config.head_dim
        ids = ops.parameter([-1, -1], np.int64, name="ids")
        cos, sin = (ops.parameter([1, 1, -1, width], np.float32, name=name) for name in ("cos", "sin"))
        hidden = ops.gather(self._constant("embed_tokens.weight"), ids, ops.constant(0))
        for number in range(self.config.num_hidden_layers):
            hidden = self._layer(f"layers.{number}.", hidden, cos, sin)
        return self.openvino.Model([self._norm("norm", hidden)], [ids, cos, sin], "pplx-embed")

    def _layer(self, name: str, hidden: Any, cos: Any, sin: Any) -> Any:
        ops = self.ops
        normed = self._norm(f"{name}input_layernorm", hidden)
        query, key, value = (self._heads(self._linear(f"{name}self_attn.{side}_proj", normed)) for side in "qkv")
        query, key = (
            self._rotate(ops.transpose(self._norm(f"{name}self_attn.{side}_norm", heads), [0, 2, 1, 3]), cos, sin)
            for side, heads in (("q", query), ("k", key))
        )
        key, value = self._share(key), self._share(ops.transpose(value, [0, 2, 1, 3]))
        mixed = ops.transpose(ops.scaled_dot_product_attention(query, key, value), [0, 2, 1, 3])
        mixed = ops.reshape(mixed, [0, 0, -1], special_zero=True)
        hidden = ops.add(hidden, self._linear(f"{name}self_attn.o_proj", mixed))
        normed = self._norm(f"{name}post_attention_layernorm", hidden)
        gate = ops.swish(self._linear(f"{name}mlp.gate_proj", normed))
        inner = ops.multiply(gate, self._linear(f"{name}mlp.up_proj", normed))
        return ops.add(hidden, self._linear(f"{name}mlp.down_proj", inner))

    def _heads(self, projected: Any) -> Any:
        return self.ops.reshape(projected, [0, 0, -1, self.config.head_dim], special_zero=True)

    def _rotate(self, heads: Any, cos: Any, sin: Any) -> Any:
        ops = self.ops
        first, second = ops.split(heads, -1, 2).outputs()
        turned = ops.concat([ops.multiply(second, np.float32(-1)), first], -1)
        return ops.add(ops.multiply(heads, cos), ops.multiply(turned, sin))

    def _share(self, heads: Any) -> Any:
        """Repeat each key or value head for the query heads that share it."""
        ops, config = self.ops, self.config
        groups = config.num_attention_heads // config.num_key_value_heads
        apart = ops.unsqueeze(heads, [2])
        repeated = ops.broadcast(apart, [1, 1, groups, 1, 1], broadcast_spec="BIDIRECTIONAL")
        return ops.reshape(repeated, [0, config.num_attention_heads, -1, config.head_dim], special_zero=True)

    def _norm(self, name: str, hidden: Any) -> Any:
        ops = self.ops
        squares = ops.reduce_mean(ops.power(hidden, np.float32(2)), [-1], keep_dims=True)
        root = ops.sqrt(ops.add(squares, np.float32(self.config.rms_norm_eps)))
        return ops.multiply(ops.multiply(hidden, ops.divide(np.float32(1), root)), self._constant(f"{name}.weight"))

    def _linear(self, name: str, hidden: Any) -> Any:
        ops, weight = self.ops, self.tensors[f"{name}.weight"]
        if not self.int8:
            return ops.matmul(hidden, self._constant(f"{name}.weight"), False, True)
        step = np.maximum(np.abs(weight).max(axis=1, keepdims=True) / 127, np.finfo(np.float32).tiny)
        rounded = ops.constant(np.rint(weight / step).astype(np.int8))
        restored = ops.multiply(ops.convert(rounded, "f32"), ops.constant(step))
        return ops.matmul(hidden, restored, False, True)

    def _constant(self, name: str) -> Any:
        return self.ops.constant(self.tensors[name], shared_memory=True)  # no copy: the file stays mapped


def _settings(dtype: torch.dtype) -> dict[str, Any]:
    return {
        "INFERENCE_PRECISION_HINT": "bf16" if dtype == torch.bfloat16 else "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": 1,
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": "128",  # inputs that share a step when they are rounded to 8 bits
        "CPU_RUNTIME_CACHE_CAPACITY": 64,  # entries by length, 5,000 by default: a service meets every length once
        "ENABLE_CPU_PINNING": False,  # workers beside each other would be pinned to the same cores
    }


def _openvino() -> Any:
    try:
        import openvino
        import openvino.opset13
    except ImportError as error:
        raise MissingDependencyError("openvino", extra="openvino") from error
    return openvino
