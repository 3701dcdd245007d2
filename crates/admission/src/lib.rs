//! stead-admission.
