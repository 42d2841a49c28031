"""What a report says first, and in which order the rest follows."""
