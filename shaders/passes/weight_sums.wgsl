// Pass 1, weight sums: sums of |W| in fixed point, over the columns or over the rows.
//
// Twin: src/passes/weight_sums.rs
// Needs: shared/params, shared/decode

// |w| times 2^36, rounded down, as low and high word; 256 at most, 0 for a non-finite weight.
fn fixed(magnitude: u32) -> vec2<u32> {
    let bits = min(magnitude, 0x43800000u);
    let exponent = bits >> 23u;
    let mantissa = (bits & 0x007fffffu) | 0x00800000u;
    // The value is mantissa times 2^(exponent - 150); with 36 fraction bits, mantissa times 2^(exponent - 114).
    var value = vec2<u32>(0u, 0u);
    if magnitude < NON_FINITE {
        if exponent >= 115u {
            let shift = exponent - 114u;
            value = vec2<u32>(mantissa << shift, mantissa >> (32u - shift));
        } else if exponent > 90u {
            value.x = mantissa >> (114u - exponent);
        }
    }
    return value;
}
