"""The papers' methods with the papers' constants.

[HAN] 2510.08625, [JAIN] 2411.16738, [AMG] 2404.00922; a constant from released code is marked as such.
"""

from mitigation import published_settings as published

from ..methods import NONE, Inputs, Method, deferred

LAB_NOISE = {"learning_rate": 0.03, "max_iterations": 80}  # 576 latent elements: larger steps (docs/noise.md)
# Model -> the presets of its noise and sampling, and what is studied beside them: targets, absolute d.
MODELS: dict[str, tuple[str, str, list[Inputs]]] = {
    "sd1.4": (published.HAN_SD1_SAMPLE, published.HAN_SD1_BATCH, [{"target_magnitude": 0.9}]),
    "sd2.0": (published.HAN_SD2_SAMPLE, published.HAN_SD2_BATCH, [{"target_magnitude": t} for t in (5.0, 10.0, 20.0)]),
    "lab": (published.HAN_SD1_SAMPLE, published.HAN_SD1_BATCH, [{**LAB_NOISE, "target_magnitude": 0.36}]),
}
LAB_BATCH = {"sharpness_radius": 9.5}
LAB_TAU = 0.7 * published.T_LAST
CONSTANTS = list(MODELS)


def methods_for(model: str) -> list[Method]:
    """Every method with the constants for a model: a key of CONSTANTS."""
    sample, batch, studied = MODELS[model]
    per_sample, batch_wise = dict(published.NOISE[sample]), dict(published.NOISE[batch])
    start = published.SAMPLING[batch]["start_percent"]
    if model == "lab":
        batch_wise, start = {**batch_wise, **LAB_BATCH}, published.percent(LAB_TAU)
    released = {"references": {"metric": "descriptor", "preparation": "AMG as released"}}
    amg = {"preset": published.AMG_RELEASED}
    alone = {**published.GUIDANCE[published.AMG_RELEASED], "deduplication": 0.0, "dissimilarity": 0.0}
    by_latent = {"references": {"metric": "latent"}}
    targets = [(f"l_target {t['target_magnitude']:g}", {**per_sample, **t}) for t in studied]
    han = deferred("static", start_percent=start)
    late = deferred("static", start_percent=published.percent(500))
    opposite = deferred("static", start_percent=published.percent(650), pre_escape_cfg=-2.0)
    rule = {k: published.SAMPLING[published.JAIN_DYNAMIC][k] for k in ("rule", "memorized_threshold", "start_percent")}
    minimum = deferred("dynamic", **rule)
    minimum_opposite = deferred("dynamic", **rule, pre_escape_cfg=-2.0)
    return [
        NONE,
        *(Method("Han per-sample", name, {"noise": noise}, paper="[HAN] individual") for name, noise in targets),
        Method(
            "Han batch-wise",
            f"CFG from {start:.0%} of the steps",
            {"noise": batch_wise, **han},
            paper="[HAN] collective",
        ),
        Method("Jain static", "CFG from t 500", late, paper="[JAIN] code"),
        Method("Jain static", "g₀ −2 until t 650", opposite, paper="[JAIN] code, opposite guidance"),
        Method("Jain dynamic", "g₀ 0", minimum, paper="[JAIN] local minimum"),
        Method("Jain dynamic", "g₀ 1", deferred("dynamic", **rule, pre_escape_cfg=1.0), True, "[JAIN] code"),
        Method("Jain dynamic", "g₀ −2", minimum_opposite, paper="[JAIN] local minimum, opposite guidance"),
        Method("AMG SSCD", "despecification alone", {**released, "guidance": alone}, paper="[AMG] G_spe"),
        Method("AMG SSCD", "as released", {**released, "guidance": amg}, True, "[AMG] code"),
        Method("AMG latent", "defaults", {**by_latent, "guidance": {}}, paper="this pack"),
        Method(
            "AMG latent",
            "where the prompt pulls",
            {**by_latent, "guidance": {"memorized_threshold": 0.02}},
            paper="this pack",
        ),
        Method("dynamic", "sharp drop", deferred("dynamic"), paper="this pack"),
    ]
