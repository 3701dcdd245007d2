//! stead-apiserver.
