"""The mathematics of memorization mitigation: tensors and papers, no ComfyUI.

A model appears only as a callable that returns a conditional noise prediction. Sources:

[HAN]  Han et al., Adjusting Initial Noise to Mitigate Memorization in Text-to-Image Diffusion
       Models, NeurIPS 2025, arXiv 2510.08625
[JAIN] Jain et al., Classifier-Free Guidance inside the Attraction Basin May Cause Memorization,
       CVPR 2025, arXiv 2411.16738
[AMG]  Chen, Liu, Xu, Towards Memorization-Free Diffusion Models, CVPR 2024, arXiv 2404.00922
"""
