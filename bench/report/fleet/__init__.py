"""A fleet as tables, figures and a document."""
