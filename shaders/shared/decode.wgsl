// From a stored weight to the bits of |w| as an f32, by integer operations wherever a device could flush. params.dtype and
// NON_FINITE are the including module's: shared/params, or a kernel's own.
//
// Twin: src/dtype.rs

@group(0) @binding(1) var<storage, read> weights: array<u32>;

const BF16: u32 = 0u;
const F16: u32 = 1u;

fn magnitude_bits(index: u32) -> u32 {
    var magnitude: u32;
    if params.dtype > F16 {
        magnitude = weights[index] & 0x7fffffffu;
    } else {
        let half_bits = (weights[index >> 1u] >> ((index & 1u) * 16u)) & 0x7fffu;
        magnitude = magnitudes_of_halves(vec4<u32>(half_bits)).x;
    }
    return magnitude;
}

// Of the 15 bits that 16-bit floats have beside their sign.
fn magnitudes_of_halves(half_bits: vec4<u32>) -> vec4<u32> {
    var magnitudes: vec4<u32>;
    if params.dtype == BF16 {
        magnitudes = half_bits << vec4<u32>(16u);
    } else {
        // Subnormal: integer mantissa times 2^-24, a normal f32.
        let subnormal = bitcast<vec4<u32>>(vec4<f32>(half_bits) * bitcast<f32>(0x33800000u));
        let shifted = half_bits << vec4<u32>(13u);
        let finite = select(shifted + 0x38000000u, subnormal, half_bits < vec4<u32>(0x0400u));
        magnitudes = select(finite, shifted | vec4<u32>(NON_FINITE), half_bits >= vec4<u32>(0x7c00u));
    }
    return magnitudes;
}
