"""MG_DeferredCFGKSampler: CFG only after the escape (Jain et al., 2411.16738; Han et al., 2510.08625)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from comfy_api.latest import io

from ..adapter.hints import negative_hint, preset_notes
from ..adapter.input_checks import check_inputs
from ..adapter.live_view import LiveView
from ..adapter.noise import initial_noise, noise_level_hint
from ..adapter.sampling import prepare_latent, run_ksampler
from ..adapter.schedule import ksampler_sigmas, sampler_names, scheduler_names
from ..drawing.node_views import escape_view
from ..methods.deferred_cfg.patch import add_deferred_cfg
from ..methods.deferred_cfg.plan import plan_from_inputs
from ..mitigation import published_settings as published
from ..mitigation.escape.curve import EscapeCurve
from ..mitigation.prediction import dimension
from . import schema

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

NAME = "Deferred-CFG KSampler"
TOOLTIPS = {
    "sampler_name": "The algorithm used when sampling, as in KSampler.",
    "scheduler": "How the noise is removed over the steps, as in KSampler.",
    "denoise": "How much to denoise, as in KSampler. Lower: keeps more of the input latent.",
    "noise": "Sampling starts from this noise instead of the seed's noise. Connect, for example, the noise from the "
    "Noise Optimizer.",
}


class DeferredCFGKSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema.node(
            search_aliases=["delayed CFG", "late guidance", "KSampler", "memorization", "transition point"],
            node_id="MG_DeferredCFGKSampler",
            display_name=NAME,
            category=schema.CATEGORY,
            description="A KSampler that delays guidance (CFG) for as long as guidance would drag an image towards a "
            "training image. As long as guidance would drag an image in this way, this image is inside an attraction "
            "basin. If the prompt has no basin, the node makes the same image as KSampler.",
            inputs=schema.with_tooltips(
                TOOLTIPS,
                io.Model.Input("model", tooltip="The model used for denoising the input latent."),
                schema.seed_input("seed", "The random seed. A seed gives the same noise here as in KSampler."),
                io.Int.Input("steps", default=20, min=1, max=10000, tooltip="The number of denoising steps."),
                schema.cfg_input(),
                io.Combo.Input("sampler_name", options=sampler_names(), default="euler"),
                io.Combo.Input("scheduler", options=scheduler_names(), default="normal"),
                io.Conditioning.Input("positive", tooltip="What you want in the image."),
                io.Conditioning.Input("negative", tooltip="What you do not want in the image."),
                io.Latent.Input("latent_image", tooltip="The latent image to denoise."),
                schema.number("denoise", 1.0, (0.0, 1.0, 0.01)),
                *schema.mode_inputs(),
                io.Noise.Input("noise", optional=True),
                schema.curve_input(),
                schema.null_input(),
                schema.preset_input(published.SAMPLING),
            ),
            outputs=[
                io.Latent.Output(display_name="latent", tooltip="The denoised latent."),
                schema.Curve.Output(
                    display_name="curve",
                    tooltip="The prompt's pull at each step, and the step at which guidance started.",
                ),
                io.Int.Output(
                    display_name="transition_step",
                    tooltip="How many steps passed until guidance was on for all images; 0 if guidance was on from the "
                    "start.",
                ),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
        )

    @classmethod
    @check_inputs
    def execute(
        cls,
        model: ModelPatcher,
        seed: int,
        positive: list,
        negative: list,
        latent_image: dict,
        denoise: float,
        noise: Any = None,
        null: list | None = None,
        preset: str = published.CUSTOM,
        **inputs: Any,  # steps, cfg, sampler_name, scheduler, and those of plan_from_inputs
    ) -> io.NodeOutput:
        latent = prepare_latent(model, latent_image, NAME)
        told = preset_notes(published.SAMPLING, preset, model, latent["samples"], NAME)
        deferral = published.applied(published.SAMPLING, preset, inputs)
        schedule = {name: deferral.pop(name) for name in ("steps", "sampler_name", "scheduler")}
        cfg = deferral.pop("cfg")
        live, curves = LiveView(), list[EscapeCurve]()
        plan = plan_from_inputs(
            **deferral,
            null=null,
            node=NAME,
            too_late=f"Same as KSampler: with denoise {denoise:.2f}, sampling starts after start_percent."
            if denoise < 1
            else "",
            on_end=curves.append,
            on_step=lambda curve: live.show(lambda: escape_view(curve, done=False)),
        )
        model = model if plan is None else add_deferred_cfg(model, plan)
        out = run_ksampler(
            model,
            initial_noise(latent, seed, noise, NAME),
            latent,
            seed=seed,
            cfg=cfg,
            **schedule,
            positive=positive,
            negative=negative,
            denoise=denoise,
        )
        sigmas = ksampler_sigmas(model, **schedule, denoise=denoise)
        if not curves:
            samples, off = latent["samples"], "Off: same as KSampler."
            because = off if plan is None else "denoise 0.00: the latent is returned as it came in."
            curves.append(EscapeCurve.unmeasured(len(samples), sigmas, dimension(samples), because))
        hints = told + noise_level_hint(noise, sigmas)
        if curves[0].measured:
            hints += negative_hint(cls.hidden.prompt, cls.hidden.unique_id, null)
        view = live.finish(escape_view(curves[0], done=True, notes=hints))
        return io.NodeOutput(out, curves[0], curves[0].latest, ui=view)


NODES = [DeferredCFGKSampler]
