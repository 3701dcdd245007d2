//! stead-client.
