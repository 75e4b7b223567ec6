//! Submissions, and whether they were carried out.
//!
//! The last dispatch of each adds one to a count on the device, and the last command copies that count to where the host
//! reads it: its *receipt*. Results are believed only with the right receipt, so that a submission which a driver drops
//! without a word is noticed, this one or any before it.

use std::collections::VecDeque;

use parking_lot::{Mutex, MutexGuard};

use std::time::Duration;

use web_time::Instant;

use super::pace::{Pace, Seen};
use crate::shader::{EntryPoint, Shader, shader};

/// The shader that counts.
pub static SENTINEL: Shader = shader! {
    name: "sentinel",
    summary: "counts the submissions of a queue",
    files: ["device/sentinel"],
    entry_points: [COUNT_SUBMISSION],
};

pub(super) static COUNT_SUBMISSION: EntryPoint = EntryPoint {
    name: "count_submission",
    bindings: &[0],
    workgroup_size: 1,
};

/// How much work a submission is: its kind, as [`Pace`] has it, and its size.
pub(crate) type WorkSize = (&'static str, u64);

/// Commands that were submitted.
#[derive(Debug)]
pub(crate) struct Submission {
    pub(super) index: wgpu::SubmissionIndex,
    /// What the count is once it is carried out.
    pub(super) number: u32,
    pub(super) receipt: wgpu::Buffer,
}

/// What was submitted to one queue, and what is known to be done.
#[derive(Debug, Default)]
pub(super) struct Submissions {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Submissions so far.
    count: u32,
    /// Those that are not known to be done, the oldest first.
    pending: VecDeque<Pending>,
    /// When the last one that is done was known to be.
    last_done: Option<Instant>,
    pace: Pace,
    /// Receipts to be used again.
    idle: Vec<wgpu::Buffer>,
    /// The longest that one submission has taken, as far as it was waited for.
    #[cfg(test)]
    longest: Duration,
}

#[derive(Debug)]
struct Pending {
    number: u32,
    work: Option<WorkSize>,
    at: Instant,
    /// How long the host was held up by submitting it: GL works then.
    held_up: Duration,
}

impl Submissions {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// A receipt to be written, if one is idle.
    pub(super) fn receipt(&self) -> Option<wgpu::Buffer> {
        self.lock().idle.pop()
    }

    /// Counts a submission; gives its number.
    pub(super) fn count(&self, work: Option<WorkSize>) -> u32 {
        let mut state = self.lock();
        state.count = state.count.wrapping_add(1);
        let number = state.count;
        let at = Instant::now();
        state.pending.push_back(Pending {
            number,
            work,
            at,
            held_up: Duration::ZERO,
        });
        number
    }

    /// Notes that the submission that was counted last has been handed to the driver.
    pub(super) fn handed_over(&self) {
        if let Some(last) = self.lock().pending.back_mut() {
            last.held_up = last.at.elapsed();
        }
    }

    /// Books what was learned from waiting so long for a submission, and with it for those before it; keeps its receipt.
    ///
    /// Where they were of several kinds, the time is shared out by how long each kind should have taken.
    pub(super) fn done(&self, number: u32, waited: Duration, receipt: wgpu::Buffer) {
        let mut state = self.lock();
        state.idle.push(receipt);
        let now = Instant::now();
        let mut seen: Vec<(&'static str, Seen)> = Vec::new();
        let mut elapsed = Duration::ZERO;
        let mut start = None;
        let mut held_up = Duration::ZERO;
        // Numbers wrap around.
        while let Some(first) = state.pending.front()
            && number.wrapping_sub(first.number) < u32::MAX / 2
        {
            let begun = state.last_done.map_or(first.at, |done| done.max(first.at));
            let start = *start.get_or_insert(begun);
            held_up += first.held_up;
            elapsed = now.saturating_duration_since(start);
            if let Some((kind, work)) = first.work {
                let known = seen.iter().position(|(of, _)| *of == kind);
                let known = known.unwrap_or_else(|| {
                    seen.push((kind, Seen::default()));
                    seen.len() - 1
                });
                let (_, seen) = &mut seen[known];
                seen.largest = seen.largest.max(work);
                seen.total += work;
            }
            state.pending.pop_front();
        }
        state.last_done = Some(now);
        // Where submitting does the work, what was submitted since has taken the rest of the time.
        if held_up > waited && held_up * 8 > elapsed {
            elapsed = held_up + waited;
        }
        let waited = (held_up + waited) * 4 >= elapsed;
        let shares = shared_out(elapsed, &seen, &state.pace);
        for ((kind, mut seen), share) in seen.into_iter().zip(shares) {
            seen.elapsed = share;
            seen.waited = waited;
            log::trace!("{kind}: {seen:?}");
            #[cfg(test)]
            if seen.waited {
                let share = seen.largest as f64 / seen.total.max(1) as f64;
                state.longest = state.longest.max(seen.elapsed.mul_f64(share));
            }
            state.pace.learn(kind, seen);
        }
    }

    /// How many there have been.
    #[cfg(test)]
    pub(super) fn so_far(&self) -> u32 {
        self.lock().count
    }

    /// The longest that a submission has taken since this was asked last.
    #[cfg(test)]
    pub(super) fn take_longest(&self) -> Duration {
        std::mem::take(&mut self.lock().longest)
    }

    /// The most work that a submission of this kind should be.
    pub(super) fn limit(&self, kind: &'static str) -> u64 {
        self.lock().pace.limit(kind)
    }

    /// Whether [`Self::limit`] has been found.
    pub(super) fn is_settled(&self, kind: &'static str) -> bool {
        self.lock().pace.is_settled(kind)
    }
}

/// Some time, shared out over the kinds of work that were done in it by how long each of them should have taken.
fn shared_out(elapsed: Duration, seen: &[(&'static str, Seen)], pace: &Pace) -> Vec<Duration> {
    let due =
        |(kind, seen): &(&'static str, Seen)| seen.total as f64 / pace.limit(kind).max(1) as f64;
    let dues: Vec<f64> = seen.iter().map(due).collect();
    let all: f64 = dues.iter().sum();
    // What has no work says nothing, whatever time it gets.
    let share = |due: &f64| elapsed.mul_f64(if all > 0.0 { due / all } else { 1.0 });
    dues.iter().map(share).collect()
}

#[cfg(test)]
mod tests {
    use super::super::pace::{PRODUCTS, SCANS};
    use super::*;

    #[test]
    fn time_of_several_kinds_is_shared_out_by_how_long_each_should_have_taken() {
        let seen = |total| Seen {
            largest: total,
            total,
            ..Seen::default()
        };
        let pace = Pace::default();
        let seconds = Duration::from_secs(3);
        let [products, scans] = [PRODUCTS, SCANS].map(|kind| pace.limit(kind));
        assert_ne!(products, scans);
        let alone = shared_out(seconds, &[(SCANS, seen(scans))], &pace);
        assert_eq!(alone, [seconds]);
        let both = [(PRODUCTS, seen(products / 4)), (SCANS, seen(scans / 2))];
        let shares = shared_out(seconds, &both, &pace);
        assert_eq!(shares, [seconds / 3, seconds * 2 / 3]);
        assert_eq!(shared_out(seconds, &[(SCANS, seen(0))], &pace), [seconds]);
    }
}
