//! stead-placement.
