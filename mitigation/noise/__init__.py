"""Initial-noise adjustment. [HAN]"""
