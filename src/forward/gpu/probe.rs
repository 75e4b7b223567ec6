//! The kernels of the forward pass, tried on a few numbers before a model is run on an adapter: a driver may translate one
//! wrongly, or leave out a barrier, and norms that are a little wrong would look like any others.
//!
//! Every entry point is tried, with each of its options: a kernel that nothing is tried on is not trusted. All of it is one
//! submission.

mod case;
mod cases;

use super::recorder::Recorder;
use crate::device::adapter::pace::PRODUCTS;
use crate::device::product::PRODUCT;
use crate::device::storage::filled;
use crate::forward::error::Error;
use crate::forward::kernels::KERNELS;
use crate::shader::{EntryPoint, Kernel};
use case::Case;
use cases::cases;

/// How far an adapter may be off, of the largest value: its functions are not exact, but a lost summand is more.
const TOLERANCE: f64 = 1e-4;

/// The work that each dispatch is booked as: little enough, whatever it does on so few numbers.
const WORK: u64 = 1 << 20;

/// Every kernel that a forward pass may need.
fn all_kernels() -> impl Iterator<Item = &'static Kernel> {
    KERNELS.iter().chain([&PRODUCT])
}

/// Checks that every kernel gives what it should; what differs is named.
pub(super) fn kernels(recorder: &Recorder<'_>) -> Result<Result<(), String>, Error> {
    let all = cases();
    let is_tried = |entry_point: &&&EntryPoint| {
        let mut all = all.iter();
        all.any(|case| case.entry_point == entry_point.name)
    };
    let mut entry_points = all_kernels().flat_map(|kernel| kernel.shader.entry_points);
    if let Some(entry_point) = entry_points.find(|entry_point| !is_tried(entry_point)) {
        return Ok(Err(format!("its {} is not tried", entry_point.name)));
    }
    let wrong = first_wrong(recorder, &all)?;
    Ok(wrong.map_or(Ok(()), Err))
}

/// Has all cases run in one submission; says what is wrong with the first that gives something else than it should.
fn first_wrong(recorder: &Recorder<'_>, all: &[Case]) -> Result<Option<String>, Error> {
    let buffers: Vec<Vec<(u32, wgpu::Buffer)>> = all
        .iter()
        .map(|case| {
            let buffers = case.buffers.iter();
            let filled = |(binding, words): &(u32, Vec<u32>)| {
                (*binding, filled(recorder.context, "tried", words))
            };
            buffers.map(filled).collect()
        })
        .collect();
    recorder.submit(|recording| {
        for (case, buffers) in all.iter().zip(&buffers) {
            let bound: Vec<_> = buffers.iter().map(|(binding, of)| (*binding, of)).collect();
            for (params, groups) in &case.dispatches {
                let (entry_point, work) = (case.entry_point, (PRODUCTS, WORK));
                recorder.record(recording, entry_point, params, &bound, *groups, work);
            }
        }
    })?;
    let mut outputs = Vec::new();
    for (case, buffers) in all.iter().zip(&buffers) {
        let output = buffers.iter().find(|(binding, _)| *binding == case.output);
        outputs.extend(output.map(|(_, of)| (of, 0..case.expected.len())));
    }
    let outputs = recorder.downloads(&outputs)?;
    for (case, got) in all.iter().zip(&outputs) {
        if let Some(difference) = difference(&case.expected, bytemuck::cast_slice(got)) {
            let what = &case.what;
            return Ok(Some(format!("its {what} is wrong: {difference}")));
        }
    }
    Ok(None)
}

fn difference(expected: &[f64], got: &[f32]) -> Option<String> {
    let largest = expected.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
    let is_off = |(expected, got): (&f64, &f32)| {
        let off = (expected - f64::from(*got)).abs();
        // NaN is off, too.
        off.is_nan() || off > TOLERANCE * largest
    };
    let at = expected.iter().zip(got).position(is_off)?;
    Some(format!("{} where {} is right", got[at], expected[at]))
}

#[cfg(test)]
mod tests;
