"""Two results: which one is faster?"""
