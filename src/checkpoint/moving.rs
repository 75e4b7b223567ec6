//! Renames that are refused for a moment.
//!
//! On Windows a file that another program looks at, a virus scanner or an indexer, cannot be renamed, nor can a directory
//! that holds one. It is over in a moment, so a rename waits for it; if it is not over in two seconds and a half, the staged
//! output, which is whole, is kept and named.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

/// Waits between attempts: 10 ms, and each time twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(10);
const WAITS: u32 = 8;

/// Renames; where the system refuses for a moment, again after it.
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    patiently(|| fs::rename(from, to), is_momentary, std::thread::sleep)
}

/// Tries until it succeeds, is refused for good, or was refused for too long; the last error then.
pub(super) fn patiently<T>(
    mut attempt: impl FnMut() -> io::Result<T>,
    is_momentary: impl Fn(&io::Error) -> bool,
    mut wait: impl FnMut(Duration),
) -> io::Result<T> {
    let mut pause = FIRST_WAIT;
    for _ in 0..WAITS {
        match attempt() {
            Err(error) if is_momentary(&error) => wait(pause),
            result => return result,
        }
        pause *= 2;
    }
    attempt()
}

/// Whether a refusal may be over soon: access denied, a sharing violation or a lock, on Windows.
pub(super) fn is_momentary(error: &io::Error) -> bool {
    cfg!(windows) && matches!(error.raw_os_error(), Some(5 | 32 | 33))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused() -> io::Error {
        io::Error::from_raw_os_error(32)
    }

    #[test]
    fn a_rename_that_is_refused_for_a_moment_is_tried_again_ever_later() {
        let mut waits = Vec::new();
        let mut left = 3;
        let attempt = || {
            left -= 1;
            if left > 0 {
                Err(refused())
            } else {
                Ok("moved")
            }
        };
        let moved = patiently(attempt, |_| true, |pause| waits.push(pause.as_millis()));
        assert_eq!(moved.unwrap(), "moved");
        assert_eq!(waits, [10, 20]);
    }

    #[test]
    fn one_that_stays_refused_is_given_up_within_three_seconds() {
        let (mut attempts, mut waited) = (0, Duration::ZERO);
        let attempt = || -> io::Result<()> {
            attempts += 1;
            Err(refused())
        };
        let error = patiently(attempt, |_| true, |pause| waited += pause).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(32));
        assert_eq!(attempts, 9);
        let seconds = waited.as_secs_f64();
        assert!((2.0..3.0).contains(&seconds), "{seconds}");
    }

    #[test]
    fn one_that_is_refused_for_good_is_not_tried_again() {
        let mut attempts = 0;
        let attempt = || -> io::Result<()> {
            attempts += 1;
            Err(io::ErrorKind::NotFound.into())
        };
        assert!(patiently(attempt, is_momentary, |_| panic!("no wait")).is_err());
        assert_eq!(attempts, 1);
    }
}
