"""Records in, tables, figures and pages out.  Imports no torch."""
