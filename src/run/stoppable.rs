//! Leaving a forward pass in the middle.
//!
//! A forward pass tells how far it is, and takes no answer. So a run that is asked to stop leaves it by unwinding, from
//! within the call that tells: nothing is printed, as no panic hook runs, and everything on the way is dropped as after
//! an error. A program that is built to abort on panics is aborted.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crate::stop::Stop;

/// What is unwound with.
struct Left;

/// Does some work that calls `check` now and then, in this thread; `None` if it was left, which `check` does once a stop is
/// requested.
pub(crate) fn stoppable<T>(stop: &Stop, work: impl FnOnce(&dyn Fn()) -> T) -> Option<T> {
    let check = || {
        if stop.is_requested() {
            resume_unwind(Box::new(Left));
        }
    };
    // What the work has borrowed is not used again: the run ends.
    match catch_unwind(AssertUnwindSafe(|| work(&check))) {
        Ok(done) => Some(done),
        Err(payload) if payload.is::<Left>() => None,
        Err(panic) => resume_unwind(panic),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_left_at_the_first_check_after_a_stop_is_requested() {
        let stop = Stop::new();
        let mut steps = 0;
        let done = stoppable(&stop, |check| {
            for step in 0..10 {
                steps = step;
                check();
                if step == 3 {
                    stop.request();
                }
            }
        });
        assert_eq!((done, steps), (None, 4));
        assert_eq!(
            stoppable(&Stop::new(), |check| {
                check();
                7
            }),
            Some(7)
        );
    }

    #[test]
    fn a_panic_of_the_work_stays_one() {
        let panicked = catch_unwind(|| stoppable(&Stop::new(), |_| resume_unwind(Box::new(1))));
        assert!(panicked.is_err());
    }
}
