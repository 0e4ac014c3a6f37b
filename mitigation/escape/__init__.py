"""Basin escape and deferred CFG. [JAIN], [HAN]"""
