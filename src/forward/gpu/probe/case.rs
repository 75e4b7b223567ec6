//! A kernel, what it is tried on, and what it should give.

use crate::fixtures::Random;

/// A kernel on some numbers.
pub(super) struct Case {
    pub(super) entry_point: &'static str,
    /// What an adapter gets wrong that fails it.
    pub(super) what: String,
    /// The uniform block and the workgroups of each dispatch.
    pub(super) dispatches: Vec<(Vec<u8>, (usize, usize))>,
    /// What the buffers hold before, by their bindings.
    pub(super) buffers: Vec<(u32, Vec<u32>)>,
    /// The binding of the buffer that is read.
    pub(super) output: u32,
    pub(super) expected: Vec<f64>,
}

impl Case {
    pub(super) fn new(entry_point: &'static str, what: &str) -> Self {
        Self {
            entry_point,
            what: what.to_owned(),
            dispatches: Vec::new(),
            buffers: Vec::new(),
            output: 0,
            expected: Vec::new(),
        }
    }

    /// With these numbers in a buffer.
    pub(super) fn with<T: bytemuck::NoUninit>(mut self, binding: u32, values: &[T]) -> Self {
        self.buffers
            .push((binding, bytemuck::pod_collect_to_vec(values)));
        self
    }

    /// With a buffer of which every number is to be written: until then it is none.
    pub(super) fn writes(self, binding: u32, expected: Vec<f64>) -> Self {
        let nothing = vec![f32::NAN; expected.len()];
        self.changes(binding, &nothing, expected)
    }

    /// With a buffer that holds numbers, some of which change.
    pub(super) fn changes(self, binding: u32, before: &[f32], expected: Vec<f64>) -> Self {
        Self {
            output: binding,
            expected,
            ..self.with(binding, before)
        }
    }

    /// Dispatched once more.
    pub(super) fn run<B: bytemuck::Pod>(mut self, params: &B, groups: (usize, usize)) -> Self {
        let params = bytemuck::bytes_of(params).to_vec();
        self.dispatches.push((params, groups));
        self
    }
}

/// Values between -1 and 1 of few bits, and never the same for two seeds.
pub(super) fn values(seed: u64, count: usize) -> Vec<f32> {
    let mut random = Random::new(seed);
    let value = move || (random.below(2001) as f32 - 1000.0) / 1024.0;
    std::iter::repeat_with(value).take(count).collect()
}

/// The same in f64.
pub(super) fn doubles(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&x| f64::from(x)).collect()
}
