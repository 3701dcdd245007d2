//! What can be set of the controllers.

use std::fmt;

use stead_informer::{Clock, system_clock};

/// Settings of all controllers. The defaults are upstream's.
#[derive(Clone)]
pub struct Config {
    /// Names of controllers that are not run (the names of [`crate::registry::all`]).
    pub disabled: Vec<String>,
    /// Where the time of day comes from.
    pub clock: Clock,
}

impl Default for Config {
    fn default() -> Self {
        Self { disabled: Vec::new(), clock: system_clock() }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("disabled", &self.disabled).finish_non_exhaustive()
    }
}
