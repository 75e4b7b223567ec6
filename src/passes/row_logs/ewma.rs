//! The moving average along a row of logarithms, and what it leaves of each block: how its scores are measured.

use super::score::{BIAS, Logs};
use crate::passes::ewma::{Average, centre, scale};
use crate::selection::Ewma;

/// How the scores of each block of a row are measured: the EWMA along the row.
#[derive(Debug, Default)]
pub(crate) struct Scales {
    pub(super) block_size: usize,
    /// The lowest logarithms that stand for no live score.
    pub(super) gaps: i32,
    /// Of each block: the average's mean with 5 fraction bits.
    pub(super) origin: Vec<i32>,
    pub(super) deviation: Vec<i32>,
    pub(super) scale: Vec<f32>,
    /// One over the scale.
    pub(super) inverse: Vec<f32>,
}

impl Scales {
    /// Runs the average over the row's blocks.
    #[inline(always)]
    pub(crate) fn measure(&mut self, logs: &[i16], kind: Logs, ewma: Ewma) {
        self.block_size = ewma.block_size();
        let blocks = logs.len().div_ceil(self.block_size);
        self.origin.resize(blocks, 0);
        self.deviation.resize(blocks, 0);
        self.scale.resize(blocks, 0.0);
        self.inverse.resize(blocks, 0.0);
        self.gaps = if kind == Logs::WithGaps { 2 } else { 0 };
        let mut average = None;
        let slots = self.origin.iter_mut().zip(&mut self.deviation);
        // The default's length known to the compiler.
        if kind == Logs::Live && self.block_size == 128 {
            let (whole, rest) = logs.as_chunks::<128>();
            let mut slots = slots;
            for (block, slot) in whole.iter().zip(&mut slots) {
                follow(&mut average, Some(of_live(block)), ewma, slot);
            }
            for slot in slots {
                follow(&mut average, Some(of_live(rest)), ewma, slot);
            }
        } else {
            for (block, slot) in logs.chunks(self.block_size).zip(slots) {
                let block = match kind {
                    Logs::Live => Some(of_live(block)),
                    Logs::WithGaps => with_gaps(block),
                };
                follow(&mut average, block, ewma, slot);
            }
        }
        let scales = self.scale.iter_mut().zip(&mut self.inverse);
        for ((to, inverse), &deviation) in scales.zip(&self.deviation) {
            *to = scale(deviation);
            *inverse = 1.0 / *to;
        }
    }
}

/// Moves the average by a block, and stores what the block's weights are measured with.
#[inline(always)]
fn follow(
    average: &mut Option<Average>,
    block: Option<Average>,
    ewma: Ewma,
    (origin, deviation): (&mut i32, &mut i32),
) {
    if let Some(block) = block {
        *average = Some(Average::follow(*average, block, ewma.gain_shift()));
    }
    // A block without live weights has nothing that would be measured.
    let average = average.unwrap_or_default();
    (*origin, *deviation) = (average.mean >> 2, average.deviation);
}

/// The average of a block of live scores.
#[inline(always)]
fn of_live(logs: &[i16]) -> Average {
    let count = logs.len() as i32;
    let sum = sum(logs) + count * BIAS;
    let distance = distance(logs, centre(sum, count));
    Average::of(count, sum, distance)
}

/// The average of a block's live scores; `None` if it has none.
#[inline(always)]
fn with_gaps(logs: &[i16]) -> Option<Average> {
    let (mut zeros, mut vanished) = (0, 0);
    for &log in logs {
        zeros += i32::from(log == i16::MIN);
        vanished += i32::from(log == i16::MIN + 1);
    }
    let count = logs.len() as i32 - zeros - vanished;
    if count == 0 {
        return None;
    }
    // What the others have added is taken off again: 0 and 1 to the sum, their distances to the distance.
    let sum = sum(logs) + logs.len() as i32 * BIAS - vanished;
    let centre = centre(sum, count);
    let distance = distance(logs, centre) - zeros * centre - vanished * (centre - 1);
    Some(Average::of(count, sum, distance))
}

#[inline(always)]
fn sum(logs: &[i16]) -> i32 {
    logs.iter().map(|&log| i32::from(log)).sum()
}

#[inline(always)]
fn distance(logs: &[i16], centre: i32) -> i32 {
    let centre = (centre - BIAS) as i16;
    logs.iter()
        .map(|&log| i32::from(log.abs_diff(centre)))
        .sum()
}
