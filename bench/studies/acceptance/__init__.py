"""Is this node worth keeping?"""
