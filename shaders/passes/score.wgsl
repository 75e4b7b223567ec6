// Pass 2, score: the order key of a weight.
//
// Twin: src/passes/score.rs
// Needs: shared/params, shared/decode

// Column factors f_j, then column terms c_j, then row terms r_i; the terms only when params.row_scored is 1.
@group(0) @binding(2) var<storage, read> factors: array<f32>;

// The bits go through an integer select between two float operations, so that no compiler reorders or fuses them,
// and a result that a device may flush is zero everywhere.
fn flush(values: vec4<f32>) -> vec4<f32> {
    let bits = bitcast<vec4<u32>>(values);
    return bitcast<vec4<f32>>(select(bits, vec4<u32>(0u), bits < vec4<u32>(SMALLEST_LIVE)));
}

// What |w| is multiplied by when params.row_scored is 1.
fn with_terms(column_factors: vec4<f32>, column_terms: vec4<f32>, row: u32) -> vec4<f32> {
    let row_term = factors[2u * params.in_features + row];
    return flush(flush(row_term + column_terms) * column_factors);
}

fn order_key(row: u32, column: u32) -> u32 {
    var multiplier = factors[column];
    if params.row_scored != 0u {
        let column_term = factors[params.in_features + column];
        multiplier = with_terms(vec4<f32>(multiplier), vec4<f32>(column_term), row).x;
    }
    let magnitude = magnitude_bits(row * params.in_features + column);
    return order_keys_of(vec4<u32>(magnitude), vec4<f32>(multiplier)).x;
}

// Magnitudes that are cubed are limited to this: 256.
const LARGEST_CUBED: u32 = 0x43800000u;

// What is multiplied: the magnitudes, or their cubes when params.cubed is 1. Of no meaning for what is not finite.
fn values(magnitudes: vec4<u32>) -> vec4<f32> {
    var values = bitcast<vec4<f32>>(magnitudes);
    if params.cubed != 0u {
        let limited = bitcast<vec4<f32>>(min(magnitudes, vec4<u32>(LARGEST_CUBED)));
        values = flush(flush(limited * limited) * limited);
    }
    return values;
}

fn order_keys_of(magnitudes: vec4<u32>, multipliers: vec4<f32>) -> vec4<u32> {
    let score_bits = bitcast<vec4<u32>>(values(magnitudes) * multipliers);
    let of_vanished = select(vec4<u32>(1u), vec4<u32>(0u), magnitudes == vec4<u32>(0u));
    let finite = select(score_bits, of_vanished, score_bits < vec4<u32>(SMALLEST_LIVE));
    return select(finite, vec4<u32>(NON_FINITE), magnitudes >= vec4<u32>(NON_FINITE));
}
