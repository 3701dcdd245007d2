//! Visits every state of small sets.
