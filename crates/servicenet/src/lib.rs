//! stead-servicenet.
