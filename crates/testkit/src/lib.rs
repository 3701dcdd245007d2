//! What tests need around the product: images made from Debian packages, a registry that serves them, and a running server.
//!
//! Only tests and `xtask` depend on this crate. Nothing here stands in for a part of the product.

#![forbid(unsafe_code)]

pub mod cluster;
pub mod csi_driver;
pub mod images;
pub mod kubectl;
pub mod machines;
pub mod registry;
