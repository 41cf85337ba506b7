import copy
import importlib
from typing import Any

import pytest
import torch
from torch.optim import AdamW, Muon
from torch.optim.lr_scheduler import LambdaLR

from joker.training.muon import MuonWithAdamW, orthogonalize

transformers: Any = importlib.import_module("transformers")

SHAPE = {"n_layer": 1, "n_embd": 16, "n_head": 2, "vocab_size": 32, "n_positions": 16}


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**SHAPE))


def give_gradients(model: torch.nn.Module, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 16, 48), (2, 48, 16)])
def test_singular_values_of_an_update_come_near_one(shape: tuple[int, int, int]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    exact = orthogonalize(matrices, torch.float32)
    turned = left.mT @ exact @ right.mT
    values = turned.diagonal(dim1=1, dim2=2)
    assert values.min() > 0.5
    assert values.max() < 1.3
    # Nothing else: the singular vectors are the gradient's.
    torch.testing.assert_close(turned, torch.diag_embed(values), atol=1e-4, rtol=0)
    half = orthogonalize(matrices, torch.bfloat16)
    assert half.dtype == torch.bfloat16
    assert (half - exact).norm() < 0.05 * exact.norm()


def test_query_key_and_value_are_updated_as_three_matrices(model: Any) -> None:
    fused = model.transformer.h[0].attn.c_attn.weight
    parts = [torch.nn.Parameter(part.clone()) for part in fused.detach().chunk(3, dim=1)]
    optimizer = MuonWithAdamW(model, lr=0.01)
    give_gradients(model)
    for part, gradient in zip(parts, fused.grad.chunk(3, dim=1), strict=True):
        part.grad = gradient.clone()
    optimizer.step()
    muon: Any = Muon(parts, lr=0.01, adjust_lr_fn="match_rms_adamw")
    muon.step()
    torch.testing.assert_close(fused.detach(), torch.cat(list(parts), dim=1).detach())


def test_embeddings_and_norms_are_updated_by_adamw(model: Any) -> None:
    other = copy.deepcopy(model)
    optimizer = MuonWithAdamW(model, lr=0.01, weight_decay=0.1)
    give_gradients(model)
    give_gradients(other)
    optimizer.step()
    embeddings, norm = other.transformer.wte.weight, other.transformer.ln_f.weight
    AdamW([embeddings], lr=0.01, betas=(0.9, 0.95), weight_decay=0.1).step()
    AdamW([norm], lr=0.01, betas=(0.9, 0.95), weight_decay=0.0).step()
    torch.testing.assert_close(model.transformer.wte.weight, embeddings)
    torch.testing.assert_close(model.transformer.ln_f.weight, norm)


def test_every_parameter_changes(model: Any) -> None:
    before = copy.deepcopy(model)
    optimizer = MuonWithAdamW(model, lr=0.01)
    give_gradients(model)
    optimizer.step()
    for (name, new), old in zip(model.named_parameters(), before.parameters(), strict=True):
        assert not new.equal(old), name
    optimizer.zero_grad()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_scheduler_sets_both_learning_rates(model: Any) -> None:
    optimizer = MuonWithAdamW(model, lr=0.01)
    LambdaLR(optimizer, lambda _: 0.0)
    before = copy.deepcopy(model)
    give_gradients(model)
    optimizer.step()
    for new, old in zip(model.parameters(), before.parameters(), strict=True):
        assert new.equal(old)


def test_taking_up_saved_state_goes_on_to_the_same_weights(model: Any) -> None:
    optimizer = MuonWithAdamW(model, lr=0.01)
    give_gradients(model, 1)
    optimizer.step()
    other = copy.deepcopy(model)
    resumed = MuonWithAdamW(other, lr=0.5)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for one, its_optimizer in ((model, optimizer), (other, resumed)):
        give_gradients(one, 2)
        its_optimizer.step()
    for new, same in zip(model.parameters(), other.parameters(), strict=True):
        assert new.equal(same)
