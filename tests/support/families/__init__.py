"""Tiny models of the host's real families, with random weights: what `make matrix` runs every node on."""

FAST = {  # (family, precision): one of each kind of prediction, of latent and of precision, in seconds
    ("SD1.x inpainting", "fp32"),
    ("SD3", "fp8"),
    ("SDXL V, zero SNR", "bf16"),
    ("SDXL EDM (Playground)", "fp32"),
    ("Flux, true CFG", "fp16"),
    ("Flux, guidance-distilled", "fp32"),
    ("Wan video (5-D)", "fp32"),
}
