"""Half precision through the real network, and weights that the host keeps elsewhere."""

import comfy.sd
import pytest
import torch
from comfy.model_patcher import LowVramPatch

from support.executor import Host
from support.families import cells, files, states
from support.gradients import gradients
from support.graphs import checkpoint as on_lab
from support.graphs.features import Feature
from support.paths import SMALL_CHECKPOINT

LEFT = {"fp32, LoRA, --lowvram", "fp32, LoRA, --novram"}


def lab_in(dtype: torch.dtype):
    """The small lab stored and computed in `dtype`."""
    with torch.inference_mode():
        plan = {"model_options": {"dtype": dtype}, "output_vae": False, "output_clip": False}
        model = comfy.sd.load_checkpoint_guess_config(str(SMALL_CHECKPOINT), **plan)[0]
    model.set_model_compute_dtype(dtype)
    return model


@pytest.mark.parametrize(("dtype", "alike"), [(torch.float16, 0.999), (torch.bfloat16, 0.98)])
def test_the_optimizers_gradient_in_half_precision_is_single_precisions(
    host: Host, checkpoint, dtype: torch.dtype, alike: float
) -> None:
    expected, _ = gradients(host, Feature(), checkpoint)
    found, _ = gradients(host, Feature(), {**checkpoint, "m": lab_in(dtype)})
    assert torch.isfinite(found.gradient).all()
    both = found.gradient.flatten(1), expected.gradient.flatten(1)
    assert torch.nn.functional.cosine_similarity(*both).min() > alike
    torch.testing.assert_close(both[0].norm(dim=1), both[1].norm(dim=1), rtol=0.05, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_optimizer_reaches_its_target_in_half_precision(host: Host, checkpoint, dtype: torch.dtype) -> None:
    given = {**checkpoint, "m": lab_in(dtype)}
    plan = {"learning_rate": 0.03, "max_iterations": 30}
    report = host.run(Feature().prompt(o=on_lab.optimizer(**plan)), given)["o"][1]
    assert (report.after < 0.7 * report.before).all()


@pytest.mark.parametrize("name", sorted(LEFT))
def test_weights_that_stay_behind_are_patched_for_each_use(host: Host, name: str) -> None:
    """Under the same LoRA the images are those of the model that is there as a whole."""
    found = []
    for state in (states.STATES["fp32, LoRA"], states.STATES[name]):
        given = files.SD1.made(state)
        found.append(cells.Bench(host, files.SD1, given))
    inner = found[1].given["m"].model
    functions = [f for m in inner.modules() for f in getattr(m, "weight_function", [])]
    assert inner.model_lowvram and any(isinstance(f, LowVramPatch) for f in functions)
    torch.testing.assert_close(found[1].vanilla, found[0].vanilla, atol=1e-3, rtol=1e-3)
    ours = [bench.found("per-sample", max_iterations=2, learning_rate=0.03)[1] for bench in found]
    assert (ours[1].after < ours[1].before).all()
    torch.testing.assert_close(ours[1].after, ours[0].after, rtol=1e-2, atol=0)
