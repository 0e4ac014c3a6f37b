"""The inputs that the small lab needs where the nodes' defaults, made for Stable Diffusion, do not suit it."""

DEFERRED = {"pre_escape_cfg": -1.0, "memorized_threshold": 0.024}
DETECTOR = {"memorized_threshold": 0.024}
PER_SAMPLE = {"target_magnitude": 0.015, "learning_rate": 0.03}
BATCH_WISE = {"sharpness_radius": 9.0, "adjustments": 4, "adjustment_strength": 2.0}
BATCH_WISE_START = {"start_percent": 0.4}  # of the static sampler after batch-wise noise
