//! Stories.
#![cfg(test)]
