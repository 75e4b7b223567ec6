// What every pass is told: src/passes/params.rs, struct Params (the two are held together by a test).
struct Params {
    rows: u32,
    in_features: u32,
    dtype: u32,
    row_scored: u32,
    block_shift: u32,
    blocks: u32,
    gain_shift: u32,
    k: u32,
    key_bits: u32,
    below: u32,
    n: u32,
    m: u32,
    mask_words: u32,
    sums: u32,
    terms: u32,
    terms_per_tile: u32,
    sum_stride: u32,
    term_stride: u32,
    span_base: u32,
    cubed: u32,
}

// Keys with a meaning of their own; src/passes/keys.rs and docs/algorithm.md say more.
const SMALLEST_LIVE: u32 = 0x00800001u;
const NON_FINITE: u32 = 0x7f800000u;

@group(0) @binding(0) var<uniform> params: Params;
