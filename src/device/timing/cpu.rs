//! The CPU's timer: the rows are shared out among threads, each with keys of its own.

use std::hint::black_box;

use web_time::Instant;

use super::timed::{Elapsed, Timed};
use crate::device::cpu::{self, Keys};
use crate::recipe::{Recipe, Rows, Step};

pub(super) struct CpuTimer<'a> {
    timed: Timed,
    recipe: &'a Recipe,
    parts: Vec<Part<'a>>,
}

/// The rows of one thread.
struct Part<'a> {
    rows: Rows<'a>,
    first_row: usize,
    keys: Keys,
    copy: Vec<u8>,
}

impl<'a> CpuTimer<'a> {
    pub(super) fn new(timed: Timed, rows: Rows<'a>, recipe: &'a Recipe, threads: usize) -> Self {
        let share = rows.rows().div_ceil(threads).max(1);
        let row_bytes = rows.in_features * rows.dtype.size();
        let parts = rows.bytes.chunks((share * row_bytes).max(1)).enumerate();
        let parts = parts.map(|(index, bytes)| {
            let mut part = Part {
                rows: Rows { bytes, ..rows },
                first_row: index * share,
                keys: Keys::default(),
                copy: vec![0; if timed == Timed::Copy { bytes.len() } else { 0 }],
            };
            if let Timed::Alone(last) = timed {
                for step in [Step::Score, Step::Ewma] {
                    if step < last {
                        part.keys.run(part.rows, part.first_row, recipe, step);
                    }
                }
            }
            part
        });
        Self {
            timed,
            recipe,
            parts: parts.collect(),
        }
    }

    pub(super) fn run(&mut self, repetitions: u32) -> Elapsed {
        let start = Instant::now();
        let (timed, recipe) = (self.timed, self.recipe);
        // A browser has no threads to start.
        if let [part] = &mut self.parts[..] {
            (0..repetitions).for_each(|_| part.run(timed, recipe));
            return Elapsed {
                wall: start.elapsed(),
                device: None,
            };
        }
        std::thread::scope(|scope| {
            for part in &mut self.parts {
                scope.spawn(move || (0..repetitions).for_each(|_| part.run(timed, recipe)));
            }
        });
        Elapsed {
            wall: start.elapsed(),
            device: None,
        }
    }
}

impl Part<'_> {
    fn run(&mut self, timed: Timed, recipe: &Recipe) {
        let rows = black_box(self.rows);
        match timed {
            Timed::Copy => {
                self.copy.copy_from_slice(rows.bytes);
                black_box(&self.copy);
            }
            Timed::WeightSums => {
                black_box(cpu::sums(rows));
            }
            Timed::Alone(step) => {
                self.keys.run(rows, self.first_row, recipe, step);
                black_box(&self.keys);
            }
            Timed::Mask => {
                black_box(cpu::mask(rows, self.first_row, recipe));
            }
        }
    }
}
