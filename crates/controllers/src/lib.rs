//! stead-controllers.
