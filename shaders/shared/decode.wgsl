// From a stored weight to the bits of |w| as an f32, by integer operations wherever a device could flush.
// Twin: src/dtype.rs.

@group(0) @binding(1) var<storage, read> weights: array<u32>;

const BF16: u32 = 0u;
const F16: u32 = 1u;

fn magnitude_bits(index: u32) -> u32 {
    if params.dtype > F16 {
        return weights[index] & 0x7fffffffu;
    }
    let half_bits = (weights[index >> 1u] >> ((index & 1u) * 16u)) & 0x7fffu;
    if params.dtype == BF16 {
        return half_bits << 16u;
    }
    if half_bits < 0x0400u {
        // Subnormal: integer mantissa times 2^-24, a normal f32.
        return bitcast<u32>(f32(half_bits) * bitcast<f32>(0x33800000u));
    }
    if half_bits < 0x7c00u {
        return (half_bits << 13u) + 0x38000000u;
    }
    return (half_bits << 13u) | NON_FINITE;
}
