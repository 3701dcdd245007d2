//! stead-podlife.
