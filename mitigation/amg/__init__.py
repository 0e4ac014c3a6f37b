"""Anti-Memorization Guidance. [AMG]"""
