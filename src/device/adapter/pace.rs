//! How much work one submission may be: the one place that decides it, for the passes, for products and for `bench`.
//!
//! A driver's watchdog takes a device for hung that works on one submission for too long: on Windows for two seconds. So the
//! work of a submission is bounded by an estimate of the device's speed. It starts low, and follows what submissions were
//! seen to take.

use std::collections::HashMap;
use std::time::Duration;

/// What a submission should take at most: far below every watchdog, as the next one may be slower than the last, and far
/// above what a submission costs by itself.
pub(crate) const TARGET: Duration = Duration::from_millis(250);

/// The kind of the work that is mostly products (the forward pass, compensation), in multiplications.
pub(crate) const PRODUCTS: &str = "products";

/// The kind of the work that goes along a window, token by token (`shaders/forward/state_space.wgsl`, `delta_net.wgsl`), in
/// multiplications, too. It is a kind of its own as each of its steps waits for the last: a device does far less of it in a
/// second than it does of products, and how much less is to be found out.
pub(crate) const SCANS: &str = "scans";

/// Weights that the first submission of a pass may have: a device that does a million a second takes the target for it.
const FIRST_WEIGHTS: u64 = 1 << 18;

/// Multiplications that the first submission of products may have: likewise at a thousand million a second.
const FIRST_MULTIPLICATIONS: u64 = 1 << 28;

/// The same of scans, at a quarter of that.
const FIRST_OF_SCANS: u64 = 1 << 26;

/// How much more than the last a submission may be.
const GROWTH: u64 = 4;

/// Submissions of one kind that were seen to be done.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    /// The work of the largest.
    pub(crate) largest: u64,
    /// The work of all.
    pub(crate) total: u64,
    /// From when the device could begin until they were known to be done; of what else was done meanwhile without its share.
    pub(crate) elapsed: Duration,
    /// Whether the host waited for them, so that they were not done long before they were known to be.
    pub(crate) waited: bool,
}

/// The bounds by kind of work: the entry point of a pass, [`PRODUCTS`] or [`SCANS`].
#[derive(Debug, Default)]
pub(crate) struct Pace {
    limits: HashMap<&'static str, Limit>,
}

#[derive(Clone, Copy, Debug)]
struct Limit {
    work: u64,
    /// The last submissions did not raise it.
    is_settled: bool,
}

impl Pace {
    fn of(&self, kind: &'static str) -> Limit {
        let first = Limit {
            work: match kind {
                PRODUCTS => FIRST_MULTIPLICATIONS,
                SCANS => FIRST_OF_SCANS,
                _ => FIRST_WEIGHTS,
            },
            is_settled: false,
        };
        self.limits.get(kind).copied().unwrap_or(first)
    }

    /// The most work that a submission of this kind should be.
    pub(crate) fn limit(&self, kind: &'static str) -> u64 {
        self.of(kind).work
    }

    /// Whether the bound has been found; before, it is worth while to wait for each submission.
    pub(crate) fn is_settled(&self, kind: &'static str) -> bool {
        self.of(kind).is_settled
    }

    /// Lowers the bound if a submission took longer than the target; raises it if larger ones would not.
    pub(crate) fn learn(&mut self, kind: &'static str, seen: Seen) {
        if seen.total == 0 {
            return;
        }
        let Limit { work, .. } = self.of(kind);
        let seconds = seen.elapsed.as_secs_f64().max(1e-6);
        let affordable = (seen.total as f64 / seconds * TARGET.as_secs_f64()) as u64;
        let next = if affordable < seen.largest {
            // What nobody waited for may have been done long ago: that says nothing.
            if seen.waited { affordable.max(1) } else { work }
        } else if seen.largest >= work / 2 {
            work.max(affordable.min(work.saturating_mul(GROWTH)))
        } else {
            work
        };
        let is_settled = self.of(kind).is_settled || seen.largest >= work / 2 && next <= work * 2;
        let next = Limit {
            work: next,
            is_settled,
        };
        self.limits.insert(kind, next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device that does so much work a second takes submissions as large as it may; the longest, in seconds, and the
    /// last bound.
    fn run(speed: f64, submissions: usize) -> (f64, u64) {
        let mut pace = Pace::default();
        let mut longest: f64 = 0.0;
        for _ in 0..submissions {
            let work = pace.limit("pass");
            let seconds = work as f64 / speed;
            longest = longest.max(seconds);
            pace.learn("pass", seen(work, seconds, true));
        }
        (longest, pace.limit("pass"))
    }

    fn seen(work: u64, seconds: f64, waited: bool) -> Seen {
        Seen {
            largest: work,
            total: work,
            elapsed: Duration::from_secs_f64(seconds),
            waited,
        }
    }

    #[test]
    fn no_submission_takes_longer_than_the_target_on_any_device_of_a_million_weights_a_second() {
        for speed in [1.1e6, 1e7, 1e9, 1e12] {
            let (longest, limit) = run(speed, 20);
            assert!(
                longest <= TARGET.as_secs_f64() * 1.01,
                "{speed}: {longest} s"
            );
            let used = limit as f64 / speed / TARGET.as_secs_f64();
            assert!((0.9..1.01).contains(&used), "{speed}: {used} of the target");
        }
    }

    #[test]
    fn a_slower_device_gets_one_submission_that_is_too_long_and_then_none() {
        let (longest, _) = run(1.5e5, 20);
        assert!((1.5..2.0).contains(&longest), "{longest} s, once");
        let mut pace = Pace::default();
        pace.learn("pass", seen(1 << 18, 1.7, true));
        assert!(pace.limit("pass") < 1 << 16);
    }

    #[test]
    fn what_nobody_waited_for_and_what_was_small_do_not_lower_the_bound() {
        let mut pace = Pace::default();
        let before = pace.limit("pass");
        pace.learn("pass", seen(before, 3.0, false));
        pace.learn("pass", seen(100, 0.01, true));
        assert_eq!(pace.limit("pass"), before);
    }

    #[test]
    fn each_kind_has_a_bound_of_its_own_and_is_settled_once_it_no_longer_grows() {
        let mut pace = Pace::default();
        assert!(!pace.is_settled(PRODUCTS));
        pace.learn(PRODUCTS, seen(1 << 28, 0.01, true));
        assert!(!pace.is_settled(PRODUCTS));
        assert_eq!(pace.limit(PRODUCTS), 1 << 30);
        pace.learn(PRODUCTS, seen(1 << 30, 0.2, true));
        assert!(pace.is_settled(PRODUCTS));
        assert!(!pace.is_settled("pass"));
        assert_eq!(pace.limit("pass"), FIRST_WEIGHTS);
    }
}
