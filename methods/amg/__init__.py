"""Anti-Memorization Guidance as a model patch. [AMG]"""
