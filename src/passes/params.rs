//! The uniform block of the passes' shaders, and the numbers of their bindings.

/// The uniform block every shader reads: `struct Params` in `shaders/shared/params.wgsl`, field for field.
///
/// A pass uses the fields it needs. That the two declarations agree is tested by reflection, not by this comment.
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(crate) struct Params {
    /// Rows (output neurons) in this chunk.
    pub rows: u32,
    /// Weights a row.
    pub in_features: u32,
    /// [`crate::Dtype`] as a number.
    pub dtype: u32,
    /// 1 when the score has terms of rows and columns (RIA, Z-Pruner).
    pub row_scored: u32,
    /// log2 of the EWMA's block size.
    pub block_shift: u32,
    /// EWMA blocks a row: `ceil(in_features / block_size)`.
    pub blocks: u32,
    /// The EWMA's gain is `1 / 2^gain_shift`.
    pub gain_shift: u32,
    /// Weights to prune a row.
    pub k: u32,
    /// Bits of the keys that `select` orders: 16 or 32.
    pub key_bits: u32,
    /// Open loop: prune threshold keys (biased by 32768) below this.
    pub below: u32,
    /// N of N:M.
    pub n: u32,
    /// M of N:M.
    pub m: u32,
    /// u32 words a row of the mask takes: `ceil(in_features / 32)`.
    pub mask_words: u32,
    /// `weight_sums`: sums to make, and weights in each.
    pub sums: u32,
    /// See `sums`.
    pub terms: u32,
    /// `weight_sums`: terms a partial sum adds up.
    pub terms_per_tile: u32,
    /// `weight_sums`: distance, in weights, between the first weights of two sums.
    pub sum_stride: u32,
    /// `weight_sums`: distance, in weights, between two terms of one sum.
    pub term_stride: u32,
    /// The least order key within the span of a row's logarithms; 0 where rows are pruned by keys.
    pub span_base: u32,
    /// 1 when it is the cube of a weight that is multiplied (Z-Pruner).
    pub cubed: u32,
}

/// Where every field of the uniform block lies in bytes, in order, and the size of the whole.
///
/// For the shader tests alone, which hold it against `struct Params` in `shaders/shared/params.wgsl`.
#[must_use]
pub fn params_layout() -> (&'static [(&'static str, usize)], usize) {
    macro_rules! offsets {
        ($($field:ident),* $(,)?) => {{
            // A field that is not named below does not compile.
            const _: fn(Params) = |Params { $($field: _),* }| ();
            &[$((stringify!($field), std::mem::offset_of!(Params, $field))),*]
        }};
    }
    let fields = offsets![
        rows,
        in_features,
        dtype,
        row_scored,
        block_shift,
        blocks,
        gain_shift,
        k,
        key_bits,
        below,
        n,
        m,
        mask_words,
        sums,
        terms,
        terms_per_tile,
        sum_stride,
        term_stride,
        span_base,
        cubed,
    ];
    (fields, size_of::<Params>())
}

/// A binding of the passes' shaders: the same number is the same thing in all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Binding {
    /// The uniform block.
    Params = 0,
    /// The stored weights.
    Weights = 1,
    /// Column factors, and the terms of the scores that have them.
    Factors = 2,
    /// What the EWMA knows of each block.
    Averages = 3,
    /// The mask, or the sums.
    Result = 4,
    /// The order keys.
    OrderKeys = 5,
    /// What is selected on: threshold keys, or order keys again.
    Keys = 6,
}

impl Binding {
    /// All of them, by their numbers.
    pub(crate) const ALL: [Self; 7] = [
        Self::Params,
        Self::Weights,
        Self::Factors,
        Self::Averages,
        Self::Result,
        Self::OrderKeys,
        Self::Keys,
    ];
}

/// An entry point of the passes, its bindings by name.
macro_rules! entry_point {
    ($name:literal, $workgroup_size:literal, [$($binding:ident),* $(,)?]) => {
        $crate::shader::EntryPoint {
            name: $name,
            bindings: &[$($crate::passes::params::Binding::$binding as u32),*],
            workgroup_size: $workgroup_size,
        }
    };
}
pub(crate) use entry_point;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_binding_is_found_by_its_number() {
        for (number, binding) in Binding::ALL.into_iter().enumerate() {
            assert_eq!(binding as usize, number);
        }
    }
}
