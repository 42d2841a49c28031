"""The published pencil estimate, step by step, beside what was measured."""
