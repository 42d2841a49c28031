"""What does each recipe gain, and how far does its output move?"""
