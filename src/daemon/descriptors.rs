//! File descriptors: as many as the system lets us have, and a word where they may not be enough.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Limits;

/// Descriptors beside those of connections and attempts: 64 segments that are kept open for reading, and listeners, other files
/// of the store, the runtime's own, standard ones.
const OTHERS: u64 = 128;

/// Raises the soft limit to what the limits of the gateway may come to, as far as the hard limit goes.
pub(super) fn make_room(limits: &Limits) {
    let needed = needed(limits);
    let have = raise(needed);
    if have < needed {
        tracing::warn!(
            have,
            needed,
            "fewer file descriptors (ulimit -n) than the limits of connections and attempts may need: past them connections \
             wait and attempts fail"
        );
    }
}

/// Raises the soft limit to `needed`, as far as the hard limit goes, and says what it is then.
pub fn raise(needed: u64) -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // None is no limit.
    let (soft, hard) = (current.unwrap_or(u64::MAX), maximum.unwrap_or(u64::MAX));
    let wanted = needed.min(hard);
    let raised = soft < wanted && setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }).is_ok();
    if raised { wanted } else { soft }
}

/// Each attempt has one connection, and as many are kept open between attempts.
fn needed(limits: &Limits) -> u64 {
    let connections = limits.ingress.connections_max + limits.api.connections_max;
    (connections + 2 * limits.delivery.in_flight_max) as u64 + OTHERS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_need_what_the_documentation_says() {
        assert_eq!(needed(&Limits::default()), 7_296);
    }
}
