//! Subscribe: where a stream begins, and what it brings.
