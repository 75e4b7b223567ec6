// Pass 1, column norm: sums of |W| in fixed point. Twin: src/passes/column_norm.rs.
//
// One invocation a sum and tile: it adds terms_per_tile weights, term_stride apart, in 64 bits made of two words. With
// the strides exchanged the same kernel sums rows. The host adds the tiles; integers, so any order gives the same.

// Per tile, then per sum: low word, high word.
@group(0) @binding(4) var<storage, read_write> sums: array<vec2<u32>>;

// |w| times 2^36, rounded down, as low and high word; 256 at most, 0 for a non-finite weight.
fn fixed(magnitude: u32) -> vec2<u32> {
    if magnitude >= NON_FINITE {
        return vec2<u32>(0u, 0u);
    }
    let bits = min(magnitude, 0x43800000u);
    let exponent = bits >> 23u;
    let mantissa = (bits & 0x007fffffu) | 0x00800000u;
    // The value is mantissa times 2^(exponent - 150); with 36 fraction bits, mantissa times 2^(exponent - 114).
    if exponent >= 115u {
        let shift = exponent - 114u;
        return vec2<u32>(mantissa << shift, mantissa >> (32u - shift));
    }
    let shift = 114u - exponent;
    if shift > 23u {
        return vec2<u32>(0u, 0u);
    }
    return vec2<u32>(mantissa >> shift, 0u);
}

@compute @workgroup_size(64)
fn column_norm(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let index = group.x * 64u + lane;
    if index >= params.sums {
        return;
    }
    let first = group.y * params.terms_per_tile;
    let last = min(first + params.terms_per_tile, params.terms);
    var low = 0u;
    var high = 0u;
    for (var term = first; term < last; term += 1u) {
        let value = fixed(magnitude_bits(index * params.sum_stride + term * params.term_stride));
        low += value.x;
        high += value.y + select(0u, 1u, low < value.x);
    }
    sums[group.y * params.sums + index] = vec2<u32>(low, high);
}
