//! Limits how often a client may send an unknown token.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

/// Failures per minute, and in one burst.
const A_MINUTE: NonZeroU32 = NonZeroU32::MIN.saturating_add(9);
/// After this many failures, addresses without a failure in the last minute are forgotten.
const TIDY_AFTER: u32 = 256;
/// How many addresses are counted separately. Beyond that, all others share one limit until some
/// are forgotten.
const ADDRESSES: usize = 10_000;

/// Failed attempts, by address.
pub(super) struct Attempts {
    limiter: DefaultKeyedRateLimiter<Option<IpAddr>>,
    clock: DefaultClock,
    since_tidied: AtomicU32,
}

impl Attempts {
    pub(super) fn new() -> Self {
        Self {
            limiter: RateLimiter::keyed(Quota::per_minute(A_MINUTE)),
            clock: DefaultClock::default(),
            since_tidied: AtomicU32::new(0),
        }
    }

    /// Counts a failure. If this client has had too many, returns how long it must wait.
    pub(super) fn failed(&self, client: Option<IpAddr>) -> Result<(), Duration> {
        if self.since_tidied.fetch_add(1, Ordering::Relaxed) >= TIDY_AFTER {
            self.since_tidied.store(0, Ordering::Relaxed);
            self.limiter.retain_recent();
            self.limiter.shrink_to_fit();
        }
        let key = if self.limiter.len() < ADDRESSES { client.map(network) } else { None };
        self.limiter.check_key(&key).map_err(|until| until.wait_time_from(self.clock.now()))
    }
}

/// What counts as one client: an IPv4 address, however it is written, or an IPv6 /64 network.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn ten_failures_are_taken_and_the_eleventh_has_to_wait() {
        let attempts = Attempts::new();
        for _ in 0..10 {
            assert_eq!(attempts.failed(address("192.0.2.1")), Ok(()));
        }
        let wait = attempts.failed(address("192.0.2.1")).unwrap_err();
        assert!((Duration::from_secs(4)..=Duration::from_secs(6)).contains(&wait), "{wait:?}");
        assert!(attempts.failed(address("::ffff:192.0.2.1")).is_err(), "the same address");
        assert!(attempts.failed(address("192.0.2.2")).is_ok(), "another one");
    }

    #[test]
    fn a_network_of_ipv6_is_one_client() {
        let attempts = Attempts::new();
        for n in 0..10 {
            assert_eq!(attempts.failed(address(&format!("2001:db8:0:1::{n}"))), Ok(()));
        }
        assert!(attempts.failed(address("2001:db8:0:1:ffff::1")).is_err());
        assert!(attempts.failed(address("2001:db8:0:2::1")).is_ok());
    }

    #[test]
    fn however_many_addresses_fail_memory_is_bounded() {
        let attempts = Attempts::new();
        for n in 0..3 * ADDRESSES as u32 {
            let _counted = attempts.failed(Some(IpAddr::V4(n.into())));
        }
        assert!(attempts.limiter.len() <= ADDRESSES + 1, "{}", attempts.limiter.len());
    }
}
