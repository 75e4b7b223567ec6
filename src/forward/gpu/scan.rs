//! Convolutions and recurrences along a sequence on the adapter.

use std::ops::Range;

use wgpu::BufferUsages as Usage;

use super::buffers::GpuTensor;
use super::recorder::Recorder;
use crate::device::adapter::pace::SCANS;
use crate::device::recorder::Sequence;
use crate::device::storage::{buffer, filled};
use crate::forward::engine::Convolved;
use crate::forward::kernels::{
    ConvolutionParams, CopyHeadsParams, DeltaNetParams, StateSpaceParams,
};
use crate::model::{DeltaSizes, Scan, ScanSizes, StateSizes};

/// The most numbers that a channel may keep: `KEPT` vectors of four in the shaders.
pub(super) const MAX_KEPT: usize = 256;

/// Channels of a workgroup.
const LANES: usize = 64;

/// Workgroups that a device is taken to run side by side: fewer take as long as so many.
const SIDE_BY_SIDE: usize = 64;

/// Each channel of `x`, convolved with those before it.
pub(super) fn convolve(
    recorder: &Recorder<'_>,
    sequence: &mut Sequence,
    convolution: &Convolved<'_>,
    x: &GpuTensor,
) -> GpuTensor {
    let bias = convolution.bias.unwrap_or_default();
    let numbers = [convolution.weight, bias].concat();
    let numbers = filled(recorder.context, "convolution", &numbers);
    let params = ConvolutionParams {
        channels: x.features as u32,
        width: convolution.width as u32,
        biased: u32::from(convolution.bias.is_some()),
    };
    let y = recorder.activations(x.tokens, x.features);
    let buffers = [(1, &x.buffer), (2, &numbers), (3, &y.buffer)];
    let groups = (x.features.div_ceil(64), x.tokens);
    let steps = convolution.width;
    recorder.dispatch(sequence, "convolution", &params, &buffers, groups, steps);
    y
}

/// What comes out of a scan, in as many submissions as it takes.
pub(super) fn scan(
    recorder: &Recorder<'_>,
    sequence: &mut Sequence,
    scan: &Scan,
    inputs: &[&GpuTensor],
) -> GpuTensor {
    let a_token = work_of_token(scan.sizes);
    let at_a_time = || {
        let tokens = recorder.context.submission_limit(SCANS) / a_token;
        usize::try_from(tokens).unwrap_or(usize::MAX).max(1)
    };
    in_parts(recorder, sequence, scan, inputs, at_a_time)
}

/// Multiplications of all channels for one token.
fn work_of_token(sizes: ScanSizes) -> u64 {
    // Of each number that a channel keeps; an exponential counts for some.
    let each = match sizes {
        ScanSizes::StateSpace(_) => 12,
        ScanSizes::DeltaNet(_) => 8,
    };
    let groups = sizes.output().div_ceil(LANES).max(SIDE_BY_SIDE);
    // What comes once a token is about as much as four numbers.
    groups as u64 * LANES as u64 * each * (sizes.kept() + 4) as u64
}

/// The same with as many tokens at a time as `at_a_time` says before each part.
pub(super) fn in_parts(
    recorder: &Recorder<'_>,
    sequence: &mut Sequence,
    scan: &Scan,
    inputs: &[&GpuTensor],
    at_a_time: impl Fn() -> usize,
) -> GpuTensor {
    let tokens = inputs[0].tokens;
    let all = side_by_side(recorder, sequence, inputs);
    let numbers = [&scan.decays[..], &scan.bias, &scan.skip].concat();
    let numbers = filled(recorder.context, "scan", &numbers);
    let y = recorder.activations(tokens, scan.sizes.output());
    let groups = (y.features.div_ceil(LANES), 1);
    let mut state = None;
    let mut first = 0;
    while first < tokens {
        let end = tokens.min(first + at_a_time().max(1));
        if end < tokens && state.is_none() {
            let kept = scan.sizes.kept().next_multiple_of(4);
            let bytes = 4 * y.features as u64 * kept as u64;
            state = Some(buffer(recorder.context, "state", bytes, Usage::STORAGE));
        }
        let (entry_point, params) = params(scan, tokens, first..end);
        let buffers = [
            (1, &all.buffer),
            (2, &numbers),
            (3, &y.buffer),
            (4, state.as_ref().unwrap_or(&recorder.nothing)),
        ];
        let work = (SCANS, work_of_token(scan.sizes) * (end - first) as u64);
        recorder.record(sequence, entry_point, &params, &buffers, groups, work);
        first = end;
    }
    y
}

/// The kernel of a scan, and what it is told for some of the tokens.
fn params(scan: &Scan, tokens: usize, part: Range<usize>) -> (&'static str, Vec<u8>) {
    let (tokens, first, end) = (tokens as u32, part.start as u32, part.end as u32);
    // No infinities, which are at the mercy of fast arithmetic.
    let [least, most] = scan.limits.map(|limit| limit.min(f32::MAX));
    match scan.sizes {
        ScanSizes::StateSpace(sizes) => {
            let StateSizes {
                heads,
                features,
                groups: of_states,
                states,
            } = sizes;
            let params = StateSpaceParams {
                tokens,
                first,
                end,
                heads: heads as u32,
                features: features as u32,
                groups: of_states as u32,
                states: states as u32,
                decays: (scan.decays.len() / heads) as u32,
                least,
                most,
            };
            ("state_space", bytemuck::bytes_of(&params).to_vec())
        }
        ScanSizes::DeltaNet(sizes) => {
            let DeltaSizes {
                key_heads,
                value_heads,
                key_features,
                value_features,
            } = sizes;
            let params = DeltaNetParams {
                tokens,
                first,
                end,
                key_heads: key_heads as u32,
                value_heads: value_heads as u32,
                key_features: key_features as u32,
                value_features: value_features as u32,
                least,
                most,
            };
            ("delta_net", bytemuck::bytes_of(&params).to_vec())
        }
    }
}

/// Tensors as one, in each token's row one behind the other: a kernel has few bindings.
fn side_by_side(
    recorder: &Recorder<'_>,
    sequence: &mut Sequence,
    parts: &[&GpuTensor],
) -> GpuTensor {
    let tokens = parts[0].tokens;
    let features = parts.iter().map(|part| part.features).sum();
    let all = recorder.activations(tokens, features);
    let mut first = 0;
    for part in parts {
        let params = CopyHeadsParams {
            features: part.features as u32,
            from_token_stride: part.features as u32,
            to_first: first as u32,
            to_token_stride: features as u32,
            ..Default::default()
        };
        let buffers = [(1, &part.buffer), (2, &all.buffer)];
        let steps = part.features.div_ceil(64);
        let groups = (1, tokens);
        recorder.dispatch(sequence, "copy_heads", &params, &buffers, groups, steps);
        first += part.features;
    }
    all
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::device::adapter::adapters;
    use crate::device::adapter::faults::Faults;
    use crate::fixtures::Random;

    /// Values between -1 and 1.
    fn values(seed: u64, count: usize) -> Vec<f32> {
        let mut random = Random::new(seed);
        let value = move || (random.below(2001) as f32 - 1000.0) / 1024.0;
        std::iter::repeat_with(value).take(count).collect()
    }

    /// A scan of these sizes, with so many decays a head.
    fn scan_of(sizes: ScanSizes, heads: usize, decays: usize) -> Scan {
        let decays = values(1, heads * decays);
        let skips = match sizes {
            ScanSizes::StateSpace(_) => heads,
            ScanSizes::DeltaNet(_) => 0,
        };
        Scan {
            sizes,
            decays: decays.iter().map(|x| -0.1 - x.abs()).collect(),
            bias: values(2, heads),
            skip: values(3, skips),
            limits: [0.0, f32::INFINITY],
        }
    }

    fn inputs_of(recorder: &Recorder<'_>, sizes: ScanSizes, tokens: usize) -> Vec<GpuTensor> {
        let of = |(seed, features): (u64, usize)| {
            let tensor = GpuTensor::new(recorder.context, tokens, features);
            let values = values(seed, tokens * features);
            let queue = &recorder.context.queue;
            queue.write_buffer(&tensor.buffer, 0, bytemuck::cast_slice(&values));
            tensor
        };
        (10..).zip(sizes.inputs()).map(of).collect()
    }

    fn mamba(channels: usize, states: usize) -> Scan {
        let sizes = ScanSizes::StateSpace(StateSizes {
            heads: channels,
            features: 1,
            groups: 1,
            states,
        });
        scan_of(sizes, channels, states)
    }

    #[test]
    fn a_scan_in_parts_gives_the_bits_of_one_at_once() {
        let mamba_2 = ScanSizes::StateSpace(StateSizes {
            heads: 6,
            features: 20,
            groups: 2,
            states: 14,
        });
        let delta_net = ScanSizes::DeltaNet(DeltaSizes {
            key_heads: 2,
            value_heads: 4,
            key_features: 18,
            value_features: 20,
        });
        let scans = [
            mamba(70, 10),
            scan_of(mamba_2, 6, 1),
            scan_of(delta_net, 4, 1),
        ];
        let tokens = 40;
        for adapter in adapters(true) {
            let context = adapter.open(Faults::default()).unwrap();
            let recorder = Recorder::new(&context, tokens);
            for scan in &scans {
                let inputs = inputs_of(&recorder, scan.sizes, tokens);
                let inputs: Vec<&GpuTensor> = inputs.iter().collect();
                let with = |at_a_time: usize| {
                    let mut y = None;
                    let record = |sequence: &mut Sequence| {
                        y = Some(in_parts(&recorder, sequence, scan, &inputs, || at_a_time));
                    };
                    recorder.submit(record).unwrap();
                    let y = y.unwrap();
                    let values = recorder.download(&y.buffer, tokens * y.features);
                    let values = values.unwrap();
                    values.iter().map(|x| x.to_bits()).collect::<Vec<_>>()
                };
                let at_once = with(usize::MAX);
                assert!(at_once.iter().any(|&bits| bits != 0));
                for at_a_time in [1, 7, 39] {
                    let what = format!("{:?} by {at_a_time} on {}", scan.sizes, context.info);
                    assert!(with(at_a_time) == at_once, "{what}");
                }
            }
        }
    }

    #[test]
    fn a_long_scan_is_booked_as_what_it_is_and_takes_several_submissions() {
        let (scan, tokens) = (mamba(4096, 16), 600);
        for adapter in adapters(true) {
            let context = adapter.open(Faults::default()).unwrap();
            let recorder = Recorder::new(&context, tokens);
            let inputs = inputs_of(&recorder, scan.sizes, tokens);
            let inputs: Vec<&GpuTensor> = inputs.iter().collect();
            // It compiles, which would count as slowness.
            let small = mamba(1, 1);
            let of_small = inputs_of(&recorder, small.sizes, 2);
            let of_small: Vec<&GpuTensor> = of_small.iter().collect();
            let warm = |sequence: &mut Sequence| {
                in_parts(&recorder, sequence, &small, &of_small, || 1);
            };
            let submission = recorder.submit(warm).unwrap();
            recorder.wait(submission).unwrap();
            context.take_longest_submission();

            let first_limit = context.submission_limit(SCANS);
            assert!(work_of_token(scan.sizes) * tokens as u64 > 4 * first_limit);
            let (before, start) = (context.submissions_so_far(), Instant::now());
            let submission = recorder.submit(|sequence| {
                super::scan(&recorder, sequence, &scan, &inputs);
            });
            recorder.wait(submission.unwrap()).unwrap();
            let count = context.submissions_so_far() - before;
            let (all, longest) = (start.elapsed(), context.take_longest_submission());
            let info = &context.info;
            println!("{info}: {count} submissions in {all:?}, the longest {longest:?}");
            // Each may be four times the last, and what comes before the scan is one.
            assert!(count >= 4, "{count} on {info}");
            let limit = context.submission_limit(SCANS);
            assert_ne!(limit, first_limit, "nothing was learned on {info}");
        }
    }
}
