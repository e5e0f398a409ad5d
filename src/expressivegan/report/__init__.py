"""Results → pages that one can read."""
