"""What another pack may hand to our sockets: whole things, empty ones, broken ones, things of another kind."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from support.executor import Host
from support.lab_pack import exact

NAN, INF = float("nan"), float("inf")
Makers = dict[str, Callable[[], Any]]


def _normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def _raises(*_: Any, **__: Any) -> Any:
    raise RuntimeError("another pack's own error")


def noise(answer: Any) -> Any:
    return SimpleNamespace(seed=1, generate_noise=lambda latent: answer(latent) if callable(answer) else answer)


def latents() -> Makers:
    shapes = [
        (2, 4, 8, 8),
        (1, 4, 8, 8),
        (0, 4, 8, 8),
        (2, 4, 8, 9),
        (1, 16, 8, 8),
        (1, 4, 1, 8, 8),
        (4, 8, 8),
        (),
        (2,),
    ]
    made: Makers = {f"latent {s}": (lambda s=s: {"samples": torch.zeros(s)}) for s in shapes}
    made |= {f"latent full {s}": (lambda s=s: {"samples": torch.ones(s)}) for s in shapes}
    for kind in (torch.int64, torch.float16, torch.float64, torch.bool, torch.complex64, torch.uint8):
        made[f"latent {kind}"] = lambda kind=kind: {"samples": torch.ones(2, 4, 8, 8).to(kind)}
    for value in (NAN, INF, 1e38, -1e38):
        made[f"latent of {value}"] = lambda value=value: {"samples": torch.full((2, 4, 8, 8), value)}
    whole = lambda: torch.zeros(2, 4, 8, 8)  # noqa: E731
    for index in ([0], [0, 1, 2], [5, 5], ["a", "b"], [-1, 0], None, "01", [0.5, 1.5], [], 7):
        made[f"latent batch_index {index}"] = lambda i=index: {"samples": whole(), "batch_index": i}
    masks = [torch.zeros(1, 3, 3), torch.full((2, 8, 8), NAN), torch.zeros(0), "mask", torch.zeros(7, 1, 64, 64), 1.0]
    for i, mask in enumerate(masks):
        made[f"latent noise_mask {i}"] = lambda m=mask: {"samples": whole(), "noise_mask": m}
    made |= {
        "latent without samples": dict,
        "latent of a list": lambda: {"samples": [[1.0]]},
        "latent of None": lambda: {"samples": None},
        "latent nested": lambda: {"samples": torch.nested.nested_tensor([torch.zeros(4, 8, 8), torch.zeros(4, 2, 3)])},
    }
    return made


def conditions() -> Makers:
    made: Makers = {p: (lambda p=p: exact.conditioning(p)) for p in exact.PROMPTS}
    for shape in [(1, 4, 9), (2, 4, 8), (3, 4, 8), (0, 4, 8), (1, 0, 8), (4, 8), (8,), ()]:
        made[f"condition {shape}"] = lambda s=shape: [[torch.zeros(s), {}]]
    for value in (NAN, INF, 1e38):
        made[f"condition of {value}"] = lambda v=value: [[torch.full((1, 4, 8), v), {}]]
    extras: list[dict[str, Any]] = [
        {"strength": NAN},
        {"strength": "x"},
        {"area": "x"},
        {"area": (1, 1, 0, 0)},
        {"area": (8, 8, 99, 99)},
        {"mask": torch.zeros(1, 3, 3)},
        {"mask": torch.zeros(5, 64, 64)},
        {"mask": "m"},
        {"start_percent": 2.0},
        {"start_percent": NAN, "end_percent": -1},
        {"pooled_output": torch.zeros(1, 7)},
        {"control": object()},
        {"hooks": "x"},
        {"guidance": "x"},
        {1: 2},
    ]
    for i, extra in enumerate(extras):
        made[f"condition with {i}"] = lambda e=extra: [[exact.conditioning("memorized")[0][0], dict(e)]]
    whole = lambda: exact.conditioning("memorized")[0]  # noqa: E731
    made |= {
        "no condition": list,
        "condition without options": lambda: [[torch.zeros(1, 4, 8)]],
        "condition of None": lambda: [[None, {}]],
        "condition of text": lambda: [["a prompt", {}]],
        "two conditions": lambda: [whole(), whole()],
        "condition as a tuple": lambda: (tuple(whole()),),
    }
    return made


def schedules() -> Makers:
    rows = [[], [14.6], [0.0], [14.6, 0.0], [14.6, 7.0, 0.0], [0.0, 14.6], [7.0, 7.0, 7.0], [14.6, NAN], [INF, 0.0]]
    rows += [[-1.0, 0.0], [1e30, 0.0], [1e-30, 0.0], [0.5, 0.2], [14.6, 7.0, 3.0], [14.6, 0.0, 0.0], [0.0, 0.0]]
    made: Makers = {f"sigmas {row}": (lambda row=row: torch.tensor(row)) for row in rows}
    made["sigmas 2-D"] = lambda: torch.tensor([[14.6, 0.0]])
    made["sigmas int"] = lambda: torch.tensor([14, 7, 0])
    made["sigmas double"] = lambda: torch.tensor([14.6, 0.0], dtype=torch.float64)
    made["sigmas half"] = lambda: torch.tensor([14.6, 3.0, 0.0], dtype=torch.float16)
    made["sigmas as a list"] = lambda: [14.6, 0.0]
    return made


def images() -> Makers:
    shapes = [(2, 32, 32, 3), (1, 96, 96, 3), (0, 32, 32, 3), (1, 0, 32, 3), (1, 1, 1, 3), (1, 1, 300, 3)]
    shapes += [(1, 32, 32, c) for c in (0, 1, 2, 4, 5, 7)] + [(32, 32, 3), (1, 2, 32, 32, 3), (52, 9, 9, 3)]
    made: Makers = {f"image {s}": (lambda s=s: torch.rand(s)) for s in shapes}
    for value in (NAN, INF, -5.0, 1e30):
        made[f"image of {value}"] = lambda v=value: torch.full((2, 32, 32, 3), v)
    for kind in (torch.uint8, torch.float16, torch.bfloat16, torch.float64, torch.bool):
        made[f"image {kind}"] = lambda k=kind: torch.rand(2, 32, 32, 3).to(k)
    return made


def noises() -> Makers:
    like = lambda latent: torch.zeros_like(latent["samples"])  # noqa: E731
    answers: dict[str, Any] = {"right": like, "None": None, "text": "x", "scalar": torch.tensor(1.0)}
    answers |= {f"shape {s}": torch.zeros(s) for s in [(1, 4, 8, 8), (2, 4, 8, 9), (0, 4, 8, 8), (4, 8, 8)]}
    answers |= {f"of {v}": torch.full((2, 4, 8, 8), v) for v in (NAN, INF, 1e38)}
    answers |= {f"{k}": torch.ones(2, 4, 8, 8).to(k) for k in (torch.float16, torch.float64, torch.int64)}
    made: Makers = {f"noise {name}": (lambda a=a: noise(a)) for name, a in answers.items()}
    made["noise that raises"] = lambda: noise(_raises)
    made["noise without seed"] = lambda: SimpleNamespace(generate_noise=like)
    made["noise with a text for sigma"] = lambda: SimpleNamespace(generate_noise=like, seed=1, sigma="high")
    return made


def curves(whole: Any) -> Makers:
    """`whole`: an EscapeCurve of two samples that the detector made."""
    n = whole.steps
    changes: dict[str, dict[str, Any]] = {
        "as it is": {},
        "no samples": {k: getattr(whole, k)[:0] for k in ("d", "pull", "transition", "memorized")},
        "one sample": {k: getattr(whole, k)[:1] for k in ("d", "pull", "transition", "memorized")},
        "no steps": {
            "d": whole.d[:, :0],
            "pull": whole.pull[:, :0],
            "sigmas": whole.sigmas[:1],
            "transition": whole.transition * 0,
        },
        "sigmas too short": {"sigmas": whole.sigmas[:2]},
        "no sigmas": {"sigmas": whole.sigmas[:0]},
        "sigmas of NaN": {"sigmas": whole.sigmas * NAN},
        "pull of another length": {"pull": whole.pull[:, :1]},
        "pull of NaN": {"pull": whole.pull * NAN},
        "pull of infinity": {"pull": whole.pull + INF, "d": whole.d + INF},
        "d of one axis": {"d": whole.d[0]},
        "transition behind the end": {"transition": whole.transition + 10 * n + 1},
        "transition before the start": {"transition": whole.transition - 1000},
        "transition float": {"transition": whole.transition.float() + 0.5},
        "transition too few": {"transition": whole.transition[:1]},
        "threshold NaN": {"threshold": NAN},
        "threshold text": {"threshold": "x"},
        "dim 0": {"dim": 0},
        "memorized None": {"memorized": None},
        "hint None": {"hint": None},
    }
    made: Makers = {f"curve {name}": (lambda c=c: unchecked(whole, **c)) for name, c in changes.items()}
    made["curve empty namespace"] = SimpleNamespace
    made["curve of texts"] = lambda: SimpleNamespace(transition_sigma="x", pull="y", batch=2)
    return made


def unchecked(whole: Any, **changed: Any) -> Any:
    """A frozen dataclass with other fields, past whatever its constructor checks: as an object of another pack."""
    made = object.__new__(type(whole))
    for name, value in {**vars(whole), **changed}.items():
        object.__setattr__(made, name, value)
    return made


def reference_sets(host: Host) -> Makers:
    kind = host.module("memorization_guard", "mitigation.references.reference_set").ReferenceSet
    features = torch.nn.functional.normalize(exact.x_mem().flatten(1) - exact.x_mem().mean()).half()
    whole = kind("latent", features.repeat(2, 1), exact.SHAPE, ("a ring", "a ring"), ("1", "2"))
    pictures = torch.rand(60, 3 * 64 * 64, generator=torch.Generator().manual_seed(2)).half()
    nl2 = kind("nL2", pictures, (3, 64, 64), ("",) * 60, ("x",) * 60)
    thumbs = torch.zeros(2, 16, 16, 3, dtype=torch.uint8)
    changes: dict[str, dict[str, Any]] = {
        "as it is": {},
        "with thumbnails": {"thumbnails": thumbs},
        "no rows": {"features": whole.features[:0], "captions": (), "names": ()},
        "rows of zero": {"features": whole.features * 0},
        "rows of NaN": {"features": whole.features * NAN},
        "rows of infinity": {"features": whole.features + INF},
        "rows in float32": {"features": whole.features.float()},
        "rows of integers": {"features": whole.features.long()},
        "one axis": {"features": whole.features[0]},
        "other shape": {"shape": (4, 8, 9)},
        "shape of texts": {"shape": ("a", "b", "c")},
        "empty shape": {"shape": ()},
        "negative shape": {"shape": (-4, -8, 8)},
        "shape of one axis": {"shape": (256,)},
        "metric unknown": {"metric": "psychic"},
        "metric descriptor": {"metric": "descriptor"},
        "metric nL2": {"metric": "nL2"},
        "captions too few": {"captions": ("a",)},
        "captions of None": {"captions": (None, None)},
        "captions None": {"captions": None},
        "captions markup": {"captions": ("<img src=x onerror=alert(1)>",) * 2, "names": ("<script>", "\x00")},
        "names too few": {"names": ()},
        "thumbnails float": {"thumbnails": thumbs.float()},
        "thumbnails of one axis": {"thumbnails": thumbs[0, 0, 0]},
        "thumbnails empty": {"thumbnails": thumbs[:, :0]},
        "thumbnails grey": {"thumbnails": thumbs[..., :1]},
        "thumbnails too few": {"thumbnails": thumbs[:1]},
        "descriptor nothing": {"metric": "descriptor", "descriptor": object()},
    }
    many: dict[str, dict[str, Any]] = {"as it is": {}, "k 0": {"k": 0}, "k -1": {"k": -1}, "k 1000": {"k": 1000}}
    many |= {f"alpha {a}": {"alpha": a} for a in (0.0, NAN, INF, -1.0, "x")}
    many |= {"k text": {"k": "x"}, "other size": {"shape": (3, 32, 128)}, "rows of NaN": {"features": pictures * NAN}}
    made: Makers = {f"set {name}": (lambda c=c: unchecked(whole, **c)) for name, c in changes.items()}
    made |= {f"nL2 set {name}": (lambda c=c: unchecked(nl2, **c)) for name, c in many.items()}
    made["set namespace"] = lambda: SimpleNamespace(metric="latent", features=None)
    return made


def models() -> Makers:
    def hooked(**answer: Any) -> Any:
        made = exact.build()
        made.set_model_unet_function_wrapper(answer["call"])
        return made

    made: Makers = {f"model {kind}": (lambda kind=kind: exact.build(kind)) for kind in exact.PARAMETERISATIONS}
    made |= {
        "model quantized": lambda: exact.quantized(exact.build()),
        "model that raises": lambda: hooked(call=_raises),
        "model of NaN": lambda: hooked(call=lambda apply, args: args["input"] * NAN),
        "model of 1e38": lambda: hooked(call=lambda apply, args: args["input"] * 0 + 1e38),
        "model of another shape": lambda: hooked(call=lambda apply, args: args["input"][:, :2]),
        "model of None": lambda: hooked(call=lambda apply, args: None),
        "model namespace": lambda: SimpleNamespace(clone=lambda: None, get_model_object=lambda name: None),
        "model without a sampling": lambda: SimpleNamespace(clone=_raises, get_model_object=_raises),
        "model network": lambda: exact.build().model,
    }
    return made


def encoders() -> Makers:
    def clip(answer: Any) -> Any:
        return SimpleNamespace(tokenize=lambda text: text, encode_from_tokens_scheduled=lambda tokens: answer)

    made: Makers = {"clip": exact.TextEncoder, "clip that raises": lambda: clip_raising}
    clip_raising = SimpleNamespace(tokenize=_raises, encode_from_tokens_scheduled=_raises)
    for name, make in {**conditions(), "None": lambda: None, "text": lambda: "x"}.items():
        made[f"clip giving {name}"] = lambda make=make: clip(make())
    return made


def vaes(whole: Any) -> Makers:
    def vae(**changed: Any) -> Any:
        return SimpleNamespace(
            **{
                "encode": whole.encode,
                "decode": whole.decode,
                "first_stage_model": whole.first_stage_model,
                "spacial_compression_encode": whole.spacial_compression_encode,
                "patcher": whole.patcher,
                "device": whole.device,
                "vae_dtype": whole.vae_dtype,
                "memory_used_decode": whole.memory_used_decode,
                "process_output": whole.process_output,
                "latent_channels": 4,
                **changed,
            }
        )

    return {
        "vae": lambda: whole,
        "vae without a network": lambda: vae(first_stage_model=None),
        "vae that raises": lambda: vae(encode=_raises),
        "vae of NaN": lambda: vae(encode=lambda pixels: whole.encode(pixels) * NAN),
        "vae giving None": lambda: vae(encode=lambda pixels: None),
        "vae giving one axis": lambda: vae(encode=lambda pixels: torch.zeros(7)),
        "vae of 16 channels": lambda: vae(latent_channels=16, encode=lambda pixels: torch.zeros(len(pixels), 16, 8, 8)),
        "vae compressing by 0": lambda: vae(spacial_compression_encode=lambda: 0),
        "vae without its parts": lambda: SimpleNamespace(encode=1, decode=2, first_stage_model=3),
    }


def descriptors(whole: Any) -> Makers:
    return {
        "clip vision": lambda: whole,
        "descriptor namespace": lambda: SimpleNamespace(patcher=1),
        "descriptor without a network": lambda: SimpleNamespace(patcher=whole.patcher, model=None),
        "descriptor without a size": lambda: SimpleNamespace(patcher=whole.patcher, model=whole.model),
        "descriptor None": lambda: SimpleNamespace(patcher=None, model=None),
    }


def anything() -> Makers:
    return {
        "None": lambda: None,
        "a number": lambda: 3,
        "NaN": lambda: NAN,
        "a text": lambda: "x",
        "a list": list,
        "a dict": dict,
        "an object": object,
        "a class": lambda: int,
        "True": lambda: True,
        "bytes": lambda: b"\x00",
        "an empty tensor": lambda: torch.zeros(0),
        "a matrix": lambda: torch.ones(2, 3),
        "a scalar": lambda: torch.tensor(1),
        "a NumPy array": lambda: _normal(2, 3).numpy(),
        "a list of None": lambda: [None],
        "nested": lambda: [[[[]]]],
        "a function": lambda: len,
        "a huge number": lambda: 10**400,
    }


def pool(host: Host, vae: Any, clip_vision: Any, curve: Any) -> dict[str, Makers]:
    """Socket -> what may come over it; every socket gets what is meant for the others, too."""
    return {
        "MODEL": models(),
        "CONDITIONING": conditions(),
        "LATENT": latents(),
        "IMAGE": images(),
        "NOISE": noises(),
        "SIGMAS": schedules(),
        "CLIP": encoders(),
        "VAE": vaes(vae),
        "MG_CURVE": curves(curve),
        "MG_REFERENCES": reference_sets(host),
        "MG_DESCRIPTOR,CLIP_VISION": descriptors(clip_vision),
    }
