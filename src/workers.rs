//! Threads that share a list of work: each takes the next piece, until there is none.

use std::any::Any;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A thread panicked, which is a bug.
#[derive(Debug)]
pub(crate) struct Panicked(
    /// What it said.
    pub(crate) String,
);

/// Does every piece of `work` on so many threads (at least one). A thread `start`s with what it keeps from piece to piece, and
/// `finish`es with a result. The results are in no order.
///
/// # Errors
/// Of the errors of `start` and `each`, that of the first piece; no piece behind it is begun. A panic is one, too, and does not
/// leave the caller waiting.
pub(crate) fn share_out<W: Sync, S, R: Send, E: From<Panicked> + Send>(
    threads: usize,
    work: &[W],
    start: impl Fn() -> Result<S, E> + Sync,
    each: impl Fn(&mut S, &W) -> Result<(), E> + Sync,
    finish: impl Fn(S) -> R + Sync,
) -> Result<Vec<R>, E> {
    let next = AtomicUsize::new(0);
    // Where the work ends: at its end, or at the first piece that failed.
    let end = AtomicUsize::new(work.len());
    let run = || -> Result<R, (usize, E)> {
        let _guard = EndsAtPanic(&end);
        let failed = |index, error| {
            end.fetch_min(index, Ordering::Relaxed);
            (index, error)
        };
        let mut state = start().map_err(|error| failed(0, error))?;
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            match work.get(index) {
                Some(piece) if index < end.load(Ordering::Relaxed) => {
                    each(&mut state, piece).map_err(|error| failed(index, error))?;
                }
                _ => return Ok(finish(state)),
            }
        }
    };
    let ended: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(run)).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| thread.join();
        threads.into_iter().map(join).collect()
    });
    let mut results = Vec::with_capacity(ended.len());
    let mut first: Option<(usize, E)> = None;
    for result in ended {
        let (index, error) = match result {
            Ok(Ok(result)) => {
                results.push(result);
                continue;
            }
            Ok(Err(failed)) => failed,
            Err(panic) => (0, Panicked(message(&*panic)).into()),
        };
        if first.as_ref().is_none_or(|(other, _)| index < *other) {
            first = Some((index, error));
        }
    }
    match first {
        Some((_, error)) => Err(error),
        None => Ok(results),
    }
}

/// What a thread that panicked said.
pub(crate) fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("it did not say why").to_owned()
}

/// Ends the work when its thread panics.
struct EndsAtPanic<'a>(&'a AtomicUsize);

impl Drop for EndsAtPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    enum Failure {
        At(usize),
        Panicked(String),
    }

    impl From<Panicked> for Failure {
        fn from(Panicked(message): Panicked) -> Self {
            Self::Panicked(message)
        }
    }

    fn run(
        threads: usize,
        each: impl Fn(usize) -> Result<(), Failure> + Sync,
    ) -> Result<Vec<usize>, Failure> {
        let work: Vec<usize> = (0..100).collect();
        let each = |done: &mut Vec<usize>, piece: &usize| -> Result<(), Failure> {
            each(*piece)?;
            done.push(*piece);
            Ok(())
        };
        let done = share_out(threads, &work, || Ok(Vec::new()), each, |done| done)?;
        let mut all = done.concat();
        all.sort_unstable();
        Ok(all)
    }

    #[test]
    fn every_piece_is_done_once_by_any_number_of_threads() {
        for threads in [0, 1, 2, 7] {
            assert!(run(threads, |_| Ok(())).unwrap().into_iter().eq(0..100));
        }
    }

    #[test]
    fn the_error_is_that_of_the_first_piece_that_fails() {
        for threads in [1, 3] {
            let each = |piece| {
                if piece % 10 == 7 {
                    // Later pieces are there first.
                    std::thread::sleep(std::time::Duration::from_millis(30 - piece as u64 % 30));
                    return Err(Failure::At(piece));
                }
                Ok(())
            };
            assert_eq!(run(threads, each), Err(Failure::At(7)));
        }
    }

    #[test]
    fn a_panic_is_an_error_that_says_what_it_said() {
        let each = |piece| {
            assert!(piece != 3, "the third");
            Ok(())
        };
        assert_eq!(run(2, each), Err(Failure::Panicked("the third".to_owned())));
        let started = share_out(
            2,
            &[1, 2],
            || -> Result<(), Failure> { Err(Failure::At(5)) },
            |(), _| Ok(()),
            |()| (),
        );
        assert_eq!(started, Err(Failure::At(5)));
    }
}
