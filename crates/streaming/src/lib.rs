//! stead-streaming.
