//! What can be set of the scheduler, and its limits.

use std::fmt;
use std::time::Duration;

use stead_informer::{Clock, system_clock};

/// The scheduler's name: what pods ask for by default, and the source of its events.
pub const NAME: &str = "default-scheduler";
/// Requests to the API that are under way at the same time; more bindings wait.
pub const BINDINGS_MAX: usize = 64;
/// How long a placed pod waits for its claims to be bound before it is placed anew.
pub const BIND_TIMEOUT: Duration = Duration::from_secs(600);
/// After its first failed binding a pod waits this long, then twice as long each time ...
pub(crate) const BACK_OFF_FIRST: Duration = Duration::from_secs(1);
/// ... up to this.
pub(crate) const BACK_OFF_MAX: Duration = Duration::from_secs(10);

/// Settings. The defaults are upstream's.
#[derive(Clone)]
pub struct Config {
    /// Pods with this `schedulerName` are placed.
    pub name: String,
    /// Where the time of day comes from.
    pub clock: Clock,
}

impl Default for Config {
    fn default() -> Self {
        Self { name: NAME.to_owned(), clock: system_clock() }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("name", &self.name).finish_non_exhaustive()
    }
}
