"""The papers' protocol on a checkpoint of one's own: memorized prompts × pictures × methods, scored as the papers do.

    .host/python -m benchmarks.papers --checkpoint v1-4.safetensors --prompts sdv1_500_memorized.jsonl \\
        --training-images gt_images --sscd sscd_disc_mixup.torchscript.pt --clip clip-folder --out results

How to get each file, and which command makes which row of the papers: docs/protocol.md. Not called
`protocol`, because the host has a module of that name, which is first on the path.
"""
