//! One thread at a time writes.
//!
//! File systems take a lock on a file for each write to it, so that two threads that write at once only wait for each
//! other, spinning (a fifth of the processor time of a run on two cores, before this). Here a thread that has something
//! to write leaves it in a queue; if nobody is writing, it becomes the writer until the queue is empty, else it goes on
//! with the next rows. The queue is bounded, so that memory is.

use std::collections::VecDeque;

use parking_lot::{Condvar, Mutex, MutexGuard};

/// A queue of work of which one thread at a time does all.
#[derive(Debug)]
pub(super) struct SingleWriter<T> {
    state: Mutex<WriterState<T>>,
    room: Condvar,
    limit: usize,
}

#[derive(Debug)]
struct WriterState<T> {
    waiting: VecDeque<T>,
    is_writing: bool,
}

impl<T> SingleWriter<T> {
    /// At most `limit` pieces wait (at least one).
    pub(super) fn new(limit: usize) -> Self {
        Self {
            state: Mutex::new(WriterState {
                waiting: VecDeque::new(),
                is_writing: false,
            }),
            room: Condvar::new(),
            limit: limit.max(1),
        }
    }

    /// Leaves a piece to be written, by `write` on this thread or by whichever thread is writing.
    ///
    /// Waits only while the queue is full. Every piece is written once, in the order of the calls, before the last
    /// call of any thread returns.
    ///
    /// # Errors
    /// The first of `write` on this thread; the pieces behind it are given to `write` all the same.
    pub(super) fn write<E>(
        &self,
        piece: T,
        mut write: impl FnMut(T) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut done = Ok(());
        let mut state = self.lock();
        while state.is_writing && state.waiting.len() >= self.limit {
            self.room.wait(&mut state);
        }
        state.waiting.push_back(piece);
        if state.is_writing {
            return done;
        }
        state.is_writing = true;
        let turn = Turn(self);
        while let Some(piece) = state.waiting.pop_front() {
            drop(state);
            self.room.notify_one();
            done = done.and(write(piece));
            state = self.lock();
        }
        turn.end(state);
        done
    }

    fn lock(&self) -> MutexGuard<'_, WriterState<T>> {
        self.state.lock()
    }
}

/// The writer's turn; it ends also when writing panics, or the others would wait for ever.
struct Turn<'a, T>(&'a SingleWriter<T>);

impl<T> Turn<'_, T> {
    /// Ends the turn before anybody can look at the queue again.
    fn end(self, mut state: MutexGuard<'_, WriterState<T>>) {
        state.is_writing = false;
        drop(state);
    }
}

impl<T> Drop for Turn<'_, T> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.lock().is_writing = false;
        }
        self.0.room.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn every_piece_is_written_once_and_by_one_thread_at_a_time() {
        let queue = SingleWriter::new(2);
        let (writers, written) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (queue, writers, written) = (&queue, &writers, &written);
                scope.spawn(move || {
                    for piece in 0..100 {
                        let write = |piece| {
                            assert_eq!(writers.fetch_add(1, Ordering::SeqCst), 0);
                            written.lock().push(piece);
                            std::thread::yield_now();
                            assert_eq!(writers.fetch_sub(1, Ordering::SeqCst), 1);
                            Ok::<_, ()>(())
                        };
                        queue.write(thread * 100 + piece, write).unwrap();
                    }
                });
            }
        });
        let mut written = written.into_inner();
        written.sort_unstable();
        assert_eq!(written, (0..400).collect::<Vec<_>>());
    }

    #[test]
    fn a_piece_that_cannot_be_written_is_an_error_of_who_writes_it_alone() {
        let queue = SingleWriter::new(2);
        let write = |piece: usize| if piece == 1 { Err(piece) } else { Ok(()) };
        let done = [0, 1, 2].map(|piece| queue.write(piece, write));
        assert_eq!(done, [Ok(()), Err(1), Ok(())]);
    }
}
