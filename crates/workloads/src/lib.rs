//! stead-workloads.
