//! stead-informer.
