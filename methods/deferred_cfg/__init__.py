"""Deferred CFG as a model patch. [JAIN], [HAN]"""
