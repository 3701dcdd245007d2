//! stead-scheduler.
