//! Convolutions and recurrences along a window on the adapter.

use std::ops::Range;

use wgpu::BufferUsages as Usage;

use super::buffers::GpuTensor;
use super::recorder::Recorder;
use crate::device::adapter::context::Context;
use crate::device::adapter::pace::SCANS;
use crate::device::recorder::Recording;
use crate::device::storage::{buffer, filled};
use crate::forward::batch::Span;
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

/// A causal convolution of each channel for itself.
#[derive(Clone, Debug)]
pub(crate) struct GpuConvolution {
    /// The weights, channel by channel, and behind them the biases.
    numbers: wgpu::Buffer,
    width: usize,
    is_biased: bool,
}

/// A recurrence along the tokens.
#[derive(Clone, Debug)]
pub(crate) struct GpuScan {
    sizes: ScanSizes,
    /// Decays, biases and skips.
    numbers: wgpu::Buffer,
    /// How many of them are decays.
    decays: usize,
    limits: [f32; 2],
}

impl GpuConvolution {
    pub(super) fn new(
        context: &Context,
        weight: &[f32],
        bias: Option<&[f32]>,
        width: usize,
    ) -> Self {
        let numbers = [weight, bias.unwrap_or_default()].concat();
        Self {
            numbers: filled(context, "convolution", &numbers),
            width,
            is_biased: bias.is_some(),
        }
    }

    /// Each channel of `x`, convolved with the tokens before it. A tail has the last of those that came before these in their
    /// window, and gets the last of these where it goes on.
    pub(super) fn apply(
        &self,
        recorder: &Recorder<'_>,
        recording: &mut Recording,
        x: &GpuTensor,
        (spans, tails): (&[Span], &mut Vec<Option<wgpu::Buffer>>),
    ) -> GpuTensor {
        let y = recorder.activations(x.tokens, x.features);
        tails.resize(spans.len(), None);
        for (span, tail) in spans.iter().zip(tails).filter(|(span, _)| span.rows > 0) {
            let before = span.position.min(self.width - 1);
            let params = ConvolutionParams {
                channels: x.features as u32,
                width: self.width as u32,
                biased: u32::from(self.is_biased),
                row: span.row as u32,
                rows: span.rows as u32,
                before: before as u32,
            };
            let last = tail.take();
            let last = last.as_ref().unwrap_or(&recorder.nothing);
            let buffers = [
                (1, &x.buffer),
                (2, &self.numbers),
                (3, &y.buffer),
                (4, last),
            ];
            let groups = (x.features.div_ceil(64), span.rows);
            let steps = self.width;
            recorder.dispatch(recording, "convolution", &params, &buffers, groups, steps);
            let kept = (before + span.rows).min(self.width - 1);
            if span.goes_on() && kept > 0 {
                let bytes = 4 * kept as u64 * x.features as u64;
                let next = buffer(recorder.context, "tail", bytes, Usage::STORAGE);
                let buffers = [(1, &x.buffer), (3, &next), (4, last)];
                let groups = (x.features.div_ceil(64), kept);
                recorder.dispatch(recording, "tail", &params, &buffers, groups, 1);
                *tail = Some(next);
            }
        }
        y
    }
}

impl GpuScan {
    pub(super) fn new(context: &Context, scan: &Scan) -> Self {
        let numbers = [&scan.decays[..], &scan.bias, &scan.skip].concat();
        Self {
            sizes: scan.sizes,
            numbers: filled(context, "scan", &numbers),
            decays: scan.decays.len(),
            limits: scan.limits,
        }
    }

    /// What comes out of it, in as many submissions as it takes. A state is what it came to at the end of the tokens that came before
    /// these in their window, and becomes that at the end of these where it goes on.
    pub(super) fn run(
        &self,
        recorder: &Recorder<'_>,
        recording: &mut Recording,
        inputs: &[&GpuTensor],
        (spans, states): (&[Span], &mut Vec<Option<wgpu::Buffer>>),
    ) -> GpuTensor {
        let a_token = work_of_token(self.sizes);
        let at_a_time = || {
            let tokens = recorder.context.submission_limit(SCANS) / a_token;
            usize::try_from(tokens).unwrap_or(usize::MAX).max(1)
        };
        self.in_parts(recorder, recording, inputs, (spans, states), at_a_time)
    }

    /// The same with as many tokens at a time as `at_a_time` says before each part.
    fn in_parts(
        &self,
        recorder: &Recorder<'_>,
        recording: &mut Recording,
        inputs: &[&GpuTensor],
        (spans, states): (&[Span], &mut Vec<Option<wgpu::Buffer>>),
        at_a_time: impl Fn() -> usize,
    ) -> GpuTensor {
        let all = side_by_side(recorder, recording, inputs);
        let y = recorder.activations(inputs[0].tokens, self.sizes.output());
        let groups = (y.features.div_ceil(LANES), 1);
        states.resize(spans.len(), None);
        for (span, state) in spans.iter().zip(states) {
            let mut first = span.row;
            while first < span.end() {
                let end = span.end().min(first + at_a_time().max(1));
                let resumes = first > span.row || span.position > 0;
                let goes_on = end < span.end() || span.goes_on();
                if goes_on && state.is_none() {
                    let kept = self.sizes.kept().next_multiple_of(4);
                    let bytes = 4 * y.features as u64 * kept as u64;
                    *state = Some(buffer(recorder.context, "state", bytes, Usage::STORAGE));
                }
                let (entry_point, params) = self.params(first..end, resumes, goes_on);
                let buffers = [
                    (1, &all.buffer),
                    (2, &self.numbers),
                    (3, &y.buffer),
                    (4, state.as_ref().unwrap_or(&recorder.nothing)),
                ];
                let work = (SCANS, work_of_token(self.sizes) * (end - first) as u64);
                recorder.record(recording, entry_point, &params, &buffers, groups, work);
                first = end;
            }
            if !span.goes_on() {
                *state = None;
            }
        }
        y
    }

    /// The kernel, and what it is told for some of the rows.
    fn params(&self, part: Range<usize>, resumes: bool, goes_on: bool) -> (&'static str, Vec<u8>) {
        let (first, end) = (part.start as u32, part.end as u32);
        let (resumes, goes_on) = (u32::from(resumes), u32::from(goes_on));
        // No infinities, which are at the mercy of fast arithmetic.
        let [least, most] = self.limits.map(|limit| limit.min(f32::MAX));
        match self.sizes {
            ScanSizes::StateSpace(sizes) => {
                let StateSizes {
                    heads,
                    features,
                    groups: of_states,
                    states,
                } = sizes;
                let params = StateSpaceParams {
                    first,
                    end,
                    resumes,
                    goes_on,
                    heads: heads as u32,
                    features: features as u32,
                    groups: of_states as u32,
                    states: states as u32,
                    decays: (self.decays / heads) as u32,
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
                    first,
                    end,
                    resumes,
                    goes_on,
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

/// Tensors as one, in each token's row one behind the other: a kernel has few bindings.
fn side_by_side(
    recorder: &Recorder<'_>,
    recording: &mut Recording,
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
        recorder.dispatch(recording, "copy_heads", &params, &buffers, groups, steps);
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

    /// A window of so many tokens at once.
    fn whole(tokens: usize) -> Span {
        Span {
            row: 0,
            rows: tokens,
            position: 0,
            window: tokens,
        }
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
                    let record = |recording: &mut Recording| {
                        let (scan, mut state) = (GpuScan::new(&context, scan), Vec::new());
                        let spans = (&[whole(tokens)][..], &mut state);
                        y = Some(scan.in_parts(&recorder, recording, &inputs, spans, || at_a_time));
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
            let warm = |recording: &mut Recording| {
                let (scan, mut state) = (GpuScan::new(&context, &small), Vec::new());
                let spans = (&[whole(2)][..], &mut state);
                scan.in_parts(&recorder, recording, &of_small, spans, || 1);
            };
            let submission = recorder.submit(warm).unwrap();
            recorder.wait(submission).unwrap();
            context.take_longest_submission();

            let first_limit = context.submission_limit(SCANS);
            assert!(work_of_token(scan.sizes) * tokens as u64 > 4 * first_limit);
            let (before, start) = (context.submissions_so_far(), Instant::now());
            let submission = recorder.submit(|recording| {
                let (scan, mut state) = (GpuScan::new(&context, &scan), Vec::new());
                scan.run(
                    &recorder,
                    recording,
                    &inputs,
                    (&[whole(tokens)], &mut state),
                );
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
