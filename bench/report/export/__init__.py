"""A result for others' tools: flat files, tables for papers, a pack for a pull request."""
