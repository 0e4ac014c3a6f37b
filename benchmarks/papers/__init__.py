"""The papers' protocol on a checkpoint of your own: memorized prompts × images × methods, scored as the papers do.

    .host/python -m benchmarks.papers --checkpoint v1-4.safetensors --prompts sdv1_500_memorized.jsonl \\
        --training-images gt_images --sscd sscd_disc_mixup.torchscript.pt --clip clip-folder --out results

docs/protocol.md says how to get each file and which command makes which row of the papers. This package is not called
`protocol`, because the host has a module of that name, which is first on the path.
"""
