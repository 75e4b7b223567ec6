//! The cores that the forward pass and compensation work on: together on one task, or each on tasks of its own.
//!
//! Loops and products ask the pool that they run in how many threads there are. In a pool of one they stay on their core:
//! cores that share a product wait for each other, so where there is a task for each, each has a pool of its own.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};

/// Threads, in one pool and in pools of one.
pub(crate) struct Cores {
    together: ThreadPool,
    alone: Vec<ThreadPool>,
}

impl Cores {
    /// So many.
    ///
    /// # Errors
    /// The system has no more threads.
    pub(crate) fn new(threads: usize) -> Result<Self, ThreadPoolBuildError> {
        Ok(Self {
            together: ThreadPoolBuilder::new().num_threads(threads).build()?,
            alone: (0..threads).map(|_| one()).collect::<Result<_, _>>()?,
        })
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.alone.len()
    }

    /// Does one task on all of them.
    pub(crate) fn together<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.together.install(work)
    }

    /// Does every task: a core a task if there are enough of them, or all of the cores on all of the tasks. The results are in
    /// the order of the tasks; after an error, no task is begun.
    ///
    /// # Errors
    /// The first error that is met.
    pub(crate) fn each<T: Send, R: Send, E: Send>(
        &self,
        tasks: Vec<T>,
        work: impl Fn(T) -> Result<R, E> + Sync,
    ) -> Result<Vec<R>, E> {
        let count = tasks.len();
        if count < self.count() {
            return self.together(|| tasks.into_par_iter().map(&work).collect());
        }
        let tasks = Mutex::new(tasks.into_iter().enumerate());
        let next = || tasks.lock().next();
        let has_failed = AtomicBool::new(false);
        let done = Mutex::new(Vec::with_capacity(count));
        let one_core = &|| {
            while !has_failed.load(Ordering::Relaxed)
                && let Some((index, task)) = next()
            {
                let result = work(task);
                has_failed.fetch_or(result.is_err(), Ordering::Relaxed);
                let mut done = done.lock();
                done.push((index, result));
            }
        };
        // The threads of the one pool do nothing but wait for those of the others.
        self.together.scope(|scope| {
            for core in &self.alone {
                scope.spawn(|_| core.install(one_core));
            }
        });
        let mut all = done.into_inner();
        all.sort_by_key(|&(index, _)| index);
        all.into_iter().map(|(_, result)| result).collect()
    }
}

/// A core for work that shares none of its products.
///
/// # Errors
/// The system has no more threads.
pub(crate) fn one() -> Result<ThreadPool, ThreadPoolBuildError> {
    ThreadPoolBuilder::new().num_threads(1).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_the_order_of_their_tasks_however_many_cores_there_are() {
        for threads in [1, 2, 3] {
            let cores = Cores::new(threads).unwrap();
            assert_eq!(cores.count(), threads);
            for count in [0, 1, 2, 3, 50] {
                let tasks: Vec<usize> = (0..count).collect();
                let doubled = cores.each(tasks, |task| Ok::<_, ()>(2 * task)).unwrap();
                assert!(doubled.into_iter().eq((0..count).map(|task| 2 * task)));
            }
        }
    }

    #[test]
    fn where_there_is_a_task_for_each_core_none_shares_its_own() {
        let cores = Cores::new(2).unwrap();
        let threads = |_| Ok::<_, ()>(rayon::current_num_threads());
        assert_eq!(cores.each(vec![(), ()], threads).unwrap(), [1, 1]);
        assert_eq!(cores.each(vec![()], threads).unwrap(), [2]);
        assert_eq!(cores.together(rayon::current_num_threads), 2);
    }

    #[test]
    fn the_first_error_ends_it() {
        let cores = Cores::new(2).unwrap();
        let work = |task: usize| if task % 10 == 3 { Err(task) } else { Ok(task) };
        assert_eq!(cores.each((0..40).collect(), work), Err(3));
    }
}
