//! stead-proxy.
