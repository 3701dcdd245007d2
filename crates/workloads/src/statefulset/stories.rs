//! Stories told as tables.
