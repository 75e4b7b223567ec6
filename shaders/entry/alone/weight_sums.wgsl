// The sums alone: weights to sums.
//
// One invocation a sum and tile: it adds terms_per_tile weights, term_stride apart, in 64 bits made of two words. With the
// strides exchanged the same kernel sums rows. The host adds the tiles; integers, so any order gives the same.
//
// Needs: passes/weight_sums

// Per tile, then per sum: low word, high word.
@group(0) @binding(4) var<storage, read_write> sums: array<vec2<u32>>;

@compute @workgroup_size(64)
fn weight_sums(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
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
