//! Handles of many files, of which a few are open at a time: a process may have 256 (macOS) or even fewer, and a checkpoint has
//! 191 files or more, and its output as many again.

use std::collections::VecDeque;
use std::fs::File;
use std::sync::Arc;

use parking_lot::Mutex;

/// The most handles that stay open. Threads that read and write go through the files in order, so that they share a few.
const MOST: usize = 8;

/// The handles that were used last, by the numbers of their files.
#[derive(Debug, Default)]
pub(super) struct Handles(Mutex<VecDeque<(usize, Arc<File>)>>);

impl Handles {
    /// The handle of a file, which `open` opens if it is not open. It stays open as long as it is held, and a while longer.
    pub(super) fn get<E>(
        &self,
        number: usize,
        open: impl FnOnce() -> Result<File, E>,
    ) -> Result<Arc<File>, E> {
        let mut kept = self.0.lock();
        let found = kept.iter().position(|(of, _)| *of == number);
        let file = match found.and_then(|place| kept.remove(place)) {
            Some((_, file)) => file,
            None => Arc::new(open()?),
        };
        kept.push_back((number, Arc::clone(&file)));
        if kept.len() > MOST {
            kept.pop_front();
        }
        Ok(file)
    }

    /// The handle of a file, if it is open.
    pub(super) fn kept(&self, number: usize) -> Option<Arc<File>> {
        let kept = self.0.lock();
        let found = kept.iter().find(|(of, _)| *of == number);
        found.map(|(_, file)| Arc::clone(file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_files_stay_open_and_those_that_are_used_stay_longest() {
        let handles = Handles::default();
        let opened = std::cell::Cell::new(0);
        let get = |number| {
            let open = || {
                opened.set(opened.get() + 1);
                tempfile::tempfile()
            };
            handles.get(number, open).unwrap()
        };
        let held = get(0);
        for number in 1..3 * MOST {
            get(number);
            get(1);
        }
        assert_eq!(opened.get(), 3 * MOST);
        assert_eq!(handles.0.lock().len(), MOST);
        assert!(handles.kept(0).is_none() && handles.kept(1).is_some());
        assert!(held.metadata().is_ok());
        let failed: Result<_, &str> = handles.get(7 * MOST, || Err("gone"));
        assert_eq!(failed.unwrap_err(), "gone");
    }
}
