"""Exporting a model folder's weights as an OpenVINO graph.

The graph is made by optimum-intel in a temporary folder, compared with PyTorch on a few jokes, and
only then moved to ``openvino/``, so that folder never has an incomplete or wrong graph.
"""

from __future__ import annotations

import io
import logging
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from joker.core.errors import MissingDependencyError, ModelFolderError, first_line
from joker.core.joke import Joke
from joker.core.model_folder import OPENVINO, ModelFolder
from joker.engines.protocol import load_tokenizer
from joker.engines.weights import load_causal_lm

MAX_MEAN_KL = 0.02
"""Maximum divergence of an int8 graph from its weights, in nats per token. Rounding to 8 bits cost
a trained model of 0.1M parameters 0.0002; a wrong graph differs by whole nats."""
MAX_INT4_MEAN_KL = 0.2
"""The same for weights rounded to 4 bits."""

_INT4_GROUP_SIZE = 64
"""Number of weights that share a scale; 32 would cost 0.04 bytes more per weight."""
_Q4_GROUP_SIZE = 32
"""Number of weights that share a scale and a minimum in GGUF's Q4_1."""
_MAX_ZERO_POINT_ERROR = 0.05
"""Maximum error of a zero point in 16 bits, in levels; rounding a weight costs up to 0.5."""
_CALIBRATION_JOKES = 128

_HUGGING_FACE_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
)

_CHECK_JOKES = (
    Joke("Why did the teapot ask for a raise?", "It was under a lot of steam and paid in saucers."),
    Joke("What did the ladder say to the wall?", "I could not have taken these steps without you."),
    Joke("How does a tailor end a speech?", "With a few loose threads and a stitch of hope."),
    Joke("What do you call a map that tells no lies?", "A very small one."),
)


@dataclass(frozen=True, slots=True)
class ExportCheck:
    """How far a graph's predictions are from those of its weights.

    Attributes:
        mean_kl: Mean over positions of KL(weights || graph) of the next token, in nats.
        agreement: Share of positions with the same likeliest token.
        positions: Number of positions compared.
    """

    mean_kl: float
    agreement: float
    positions: int


def export_openvino(
    folder: ModelFolder, *, int4_ratio: float = 0.0, calibration: Sequence[Joke] = ()
) -> ExportCheck:
    """Add a compressed OpenVINO graph and the tokenizer to a model folder, replacing older ones.

    Args:
        folder: A model folder with PyTorch weights.
        int4_ratio: Share of the blocks' weights to round to 4 bits, the least sensitive first; the
            others and the embeddings are rounded to 8.
        calibration: Jokes to choose the 4-bit rounding by; without any it is data-free.

    Returns:
        How well the graph agrees with the weights.

    Raises:
        ModelFolderError: If the weights cannot be read or exported, or the graph disagrees with
            them; the folder is left as it was.
        MissingDependencyError: If the extra ``train`` is not installed.
    """
    model = load_causal_lm(folder, device="cpu")
    try:
        with tempfile.TemporaryDirectory(prefix=f".{OPENVINO}-", dir=folder.path) as name:
            graph = Path(name) / OPENVINO
            _convert(folder, Path(name) / "float")
            _compress(folder, Path(name) / "float", graph, int4_ratio, calibration)
            check = _compare(folder, model, graph)
            limit = MAX_INT4_MEAN_KL if int4_ratio else MAX_MEAN_KL
            if not check.mean_kl <= limit:  # so that NaN fails too
                raise ModelFolderError(
                    f"the OpenVINO graph of {folder.path} disagrees with its weights (mean KL "
                    f"{check.mean_kl:.3g} nats per token, at most {limit} allowed, "
                    f"{check.agreement:.0%} same top token); train the model again"
                )
            if folder.openvino.exists():
                folder.openvino.rename(Path(name) / "replaced")
            graph.rename(folder.openvino)
    except OSError as error:
        raise ModelFolderError(f"cannot write {folder.openvino}: {error.strerror}") from error
    return check


def _convert(folder: ModelFolder, floats: Path) -> None:
    """Write an uncompressed graph of the weights to ``floats``."""
    with _silence():
        try:
            from optimum.exporters.openvino import main_export
            from optimum.intel import OVConfig
        except ImportError as error:
            raise MissingDependencyError(
                f"exporting needs {error.name}: pip install 'gpt2-the-joker[train]'"
            ) from error
        try:
            main_export(
                str(folder.path),
                floats,
                task="text-generation-with-past",
                ov_config=OVConfig(dtype="auto"),
                local_files_only=True,
            )
        except (ValueError, RuntimeError) as error:
            raise ModelFolderError(f"cannot export {folder.path}: {first_line(error)}") from error


def _compress(
    folder: ModelFolder, floats: Path, graph: Path, int4_ratio: float, calibration: Sequence[Joke]
) -> None:
    """Compress the graph in ``floats`` and write it, with the tokenizer, to ``graph``."""
    import nncf
    import openvino

    options: dict[str, Any] = {"mode": nncf.CompressWeightsMode.INT8_ASYM}
    if int4_ratio:
        options = {
            "mode": nncf.CompressWeightsMode.INT4_ASYM,
            "ratio": int4_ratio,
            "group_size": _INT4_GROUP_SIZE,
        }
    if int4_ratio and calibration:
        tokenizer = load_tokenizer(folder, folder.path)
        encoded = [tokenizer.encode(joke).input_ids for joke in calibration[:_CALIBRATION_JOKES]]
        options |= {
            "dataset": nncf.Dataset([_inputs(ids) for ids in encoded]),
            "scale_estimation": True,
            "sensitivity_metric": nncf.SensitivityMetric.MEAN_ACTIVATION_VARIANCE,
        }
    with _silence():
        model = openvino.Core().read_model(floats / "openvino_model.xml")
        stored = _store_4_bit_weights(model)
        if stored:
            options["ignored_scope"] = nncf.IgnoredScope(names=stored)
        compressed = nncf.compress_weights(model, **options)
        graph.mkdir()
        openvino.save_model(compressed, graph / "openvino_model.xml")
    for name in _HUGGING_FACE_FILES:
        source = floats if (floats / name).is_file() else folder.path
        shutil.copy(source / name, graph)


def _store_4_bit_weights(model: Any) -> list[str]:
    """Store weights that already are 4-bit as such, instead of rounding them again.

    The frozen blocks of a GGUF base in Q4_1 are such weights: each group of 32 has at most 16
    equidistant values. Only their zero points are rounded, to 16 bits.

    Args:
        model: A float graph; changed in place.

    Returns:
        Names of the matrix products whose weights are now stored in 4 bits.
    """
    import openvino
    from openvino import opset13 as ops

    names = []
    for product in model.get_ordered_ops():
        if product.get_type_name() != "MatMul" or not product.get_attributes()["transpose_b"]:
            continue
        source = product.input_value(1).get_node()
        if source.get_type_name() != "Constant" or source.shape[-1] % _Q4_GROUP_SIZE:
            continue
        groups = source.data.reshape(len(source.data), -1, _Q4_GROUP_SIZE)
        low = groups.min(-1, keepdims=True)
        scale = ((groups.max(-1, keepdims=True) - low) / 15).astype(np.float16)
        scale[scale == 0] = 1
        step = scale.astype(np.float32)
        levels = np.rint((groups - low) / step).clip(0, 15).astype(np.uint8)
        zero = (-low / step).astype(np.float16)  # need not be one of the levels
        exact = np.array_equal(levels * step + low, groups)
        if not exact or np.abs(zero + low / step).max() > _MAX_ZERO_POINT_ERROR:
            continue
        pairs = levels.reshape(-1, 2)
        packed = openvino.Tensor(openvino.Type.u4, list(levels.shape))
        packed.data[:] = pairs[:, 0] | pairs[:, 1] << 4
        stored = ops.convert(ops.constant(packed, name=source.friendly_name), "f16")
        shifted = ops.subtract(stored, ops.constant(zero))
        weights = ops.multiply(shifted, ops.constant(scale))
        shape = ops.constant(np.array(source.shape, dtype=np.int64))
        matrix = ops.convert(ops.reshape(weights, shape, special_zero=False), "f32")
        product.input(1).replace_source_output(matrix.output(0))
        names.append(product.friendly_name)
    return names


def _inputs(ids: Sequence[int]) -> dict[str, NDArray[Any]]:
    """Return the inputs of a graph with a KV cache for one sequence."""
    input_ids = np.array([ids], dtype=np.int64)
    return {
        "input_ids": input_ids,
        "attention_mask": np.ones_like(input_ids),
        "position_ids": np.arange(len(ids), dtype=np.int64)[None],
        "beam_idx": np.zeros(1, dtype=np.int32),
    }


def _compare(folder: ModelFolder, model: Any, graph: Path) -> ExportCheck:
    """Compare the next-token distributions of weights and graph on `_CHECK_JOKES`."""
    import torch
    from optimum.intel import OVModelForCausalLM

    tokenizer = load_tokenizer(folder, graph)
    kl, same = [], []
    with _silence(), torch.inference_mode():
        # The graph alone, without the rounding that a faster mode adds at runtime.
        exported = OVModelForCausalLM.from_pretrained(
            graph, ov_config={"EXECUTION_MODE_HINT": "ACCURACY"}
        )
        for joke in _CHECK_JOKES:
            ids = torch.tensor([tokenizer.encode(joke).input_ids[: folder.manifest.context_length]])
            inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            expected = model(**inputs).logits[0].log_softmax(-1)
            actual = exported(**inputs).logits[0].log_softmax(-1)
            kl.append((expected.exp() * (expected - actual)).sum(-1))
            same.append(expected.argmax(-1) == actual.argmax(-1))
    divergence, agreement = torch.cat(kl), torch.cat(same).float()
    return ExportCheck(divergence.mean().item(), agreement.mean().item(), len(divergence))


@contextmanager
def _silence() -> Iterator[None]:
    """Silence the exporters and PyTorch's tracer."""
    loggers = [logging.getLogger(name) for name in ("transformers", "optimum", "nncf")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with (
            warnings.catch_warnings(),
            redirect_stdout(io.StringIO()),
            redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
