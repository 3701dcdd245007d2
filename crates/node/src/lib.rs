//! stead-node.
